#include "support/event_log.hpp"

#include <pthread.h>

#include <chrono>
#include <mutex>
#include <utility>

namespace nntap {
namespace {

// Never destroyed: threads may log while the process ends.
struct Log {
  std::mutex mutex;
  std::size_t most = 0;
  std::vector<LoggedEvent> events;
};

Log& log() {
  static auto* one = new Log;
  return *one;
}

std::uint64_t now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
}

}  // namespace

std::atomic<bool> EventLog::on_{false};

void EventLog::start(std::size_t most) {
  std::lock_guard<std::mutex> lock(log().mutex);
  log().most = most;
  log().events.clear();
  log().events.reserve(most);
  on_ = true;
}

std::vector<LoggedEvent> EventLog::stop() {
  std::lock_guard<std::mutex> lock(log().mutex);
  on_ = false;
  return std::exchange(log().events, {});
}

void EventLog::add(const LoggedEvent& event) {
  std::lock_guard<std::mutex> lock(log().mutex);
  if (is_on() && log().events.size() < log().most) log().events.push_back(event);
}

LoggedScope::LoggedScope(const char* what, std::size_t bytes) : on_(EventLog::is_on()) {
  if (on_) event_ = {what, now(), 0, bytes, reinterpret_cast<std::uint64_t>(pthread_self())};
}

LoggedScope::~LoggedScope() {
  if (!on_) return;
  event_.end_ns = now();
  EventLog::add(event_);
}

}  // namespace nntap
