#include "capture/visits.hpp"

#include <algorithm>
#include <iterator>

namespace nntap {

std::size_t Visits::add() {
  if (size_ > 0) later_.emplace_back();
  return size_++;
}

std::size_t Visits::open() {
  open_.push_back({PyThread_get_thread_ident(), size_});
  return add();
}

std::size_t Visits::close_last() {
  const auto mine = [thread = PyThread_get_thread_ident()](const Open& open) { return open.thread == thread; };
  const auto last = std::find_if(open_.rbegin(), open_.rend(), mine);
  return close(last == open_.rend() ? open_.end() : std::prev(last.base()));
}

std::size_t Visits::close_first(std::size_t since) {
  const auto mine = [since, thread = PyThread_get_thread_ident()](const Open& open) {
    return open.thread == thread && open.visit >= since;
  };
  return close(std::find_if(open_.begin(), open_.end(), mine));
}

std::size_t Visits::close(std::vector<Open>::iterator open) {
  if (open == open_.end()) return add();
  const std::size_t visit = open->visit;
  open_.erase(open);
  return visit;
}

void Visits::abandon(std::size_t since) {
  const auto mine = [since, thread = PyThread_get_thread_ident()](const Open& open) {
    return open.thread == thread && open.visit >= since;
  };
  open_.erase(std::remove_if(open_.begin(), open_.end(), mine), open_.end());
}

}  // namespace nntap
