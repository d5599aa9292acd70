#pragma once

// What the engine did on the host, and when: what a timeline is drawn from. Off unless somebody looks.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nntap {

/// Times are those of the monotonic clock, in nanoseconds: Python's time.perf_counter_ns() is the same one on Linux.
struct LoggedEvent {
  const char* what;
  std::uint64_t begin_ns, end_ns;
  std::size_t bytes;
  std::uint64_t thread;  ///< as Python's threading.get_ident()
};

/// Any thread may log. One mutex, taken only while the log is on.
class EventLog {
 public:
  /// Drops what there is. Past `most` events nothing more is logged.
  static void start(std::size_t most);

  /// Ends it, and gives what was logged, by the end of each.
  static std::vector<LoggedEvent> stop();

  static bool is_on() { return on_.load(std::memory_order_relaxed); }
  static void add(const LoggedEvent& event);

 private:
  static std::atomic<bool> on_;
};

/// Logs the scope it lives in.
class LoggedScope {
 public:
  LoggedScope(const char* what, std::size_t bytes);
  LoggedScope(const LoggedScope&) = delete;
  LoggedScope& operator=(const LoggedScope&) = delete;
  ~LoggedScope();

  void add_bytes(std::size_t bytes) {
    if (on_) event_.bytes += bytes;
  }

 private:
  LoggedEvent event_;
  bool on_;
};

}  // namespace nntap
