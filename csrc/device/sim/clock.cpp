#include "device/sim/clock.hpp"

#include <algorithm>
#include <cmath>

namespace nntap::sim {
namespace {

Time transfer(std::size_t bytes, double bytes_per_second) {
  return static_cast<Time>(std::llround(static_cast<double>(bytes) / bytes_per_second * 1e9));
}

}  // namespace

Time copy_time(const Costs& costs, std::size_t bytes) {
  return costs.copy_ns + transfer(bytes, costs.link_bytes_per_second);
}

Time launch_time(const Costs& costs, std::size_t bytes) {
  return costs.launch_ns + transfer(bytes, costs.memory_bytes_per_second);
}

Span BusyLine::reserve(Time earliest, Time duration) {
  Time begin = earliest;
  for (const auto& [busy_begin, busy_end] : busy_) {
    if (busy_begin >= begin + duration) break;
    begin = std::max(begin, busy_end);
  }
  if (duration > 0) busy_.emplace(begin, begin + duration);
  return {begin, begin + duration};
}

HostClock::Host& HostClock::mine() {
  const auto [at, is_new] = threads_.try_emplace(std::this_thread::get_id());
  if (is_new) at->second.now = first_now();
  return at->second;
}

void HostClock::wait_until(Time end) {
  Host& host = mine();
  if (end <= host.now) return;
  host.blocked += end - host.now;
  host.now = end;
}

Time HostClock::all_blocked() const {
  Time sum = 0;
  for (const auto& [thread, host] : threads_) sum += host.blocked;
  return sum;
}

}  // namespace nntap::sim
