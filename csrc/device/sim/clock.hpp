#pragma once

// Virtual time, in nanoseconds. It is kept when work is enqueued, from the costs alone, so it does not depend on the
// order in which the schedule lets the work run.

#include <cstddef>
#include <cstdint>
#include <map>
#include <thread>

namespace nntap::sim {

using Time = std::uint64_t;

/// What things cost. Round figures for arithmetic, not measurements of any device.
struct Costs {
  double link_bytes_per_second = 50e9;      ///< of a copy to the host
  double memory_bytes_per_second = 2000e9;  ///< of what a kernel reads and writes
  Time copy_ns = 1000;                      ///< the fixed part of a copy
  Time launch_ns = 1000;                    ///< the fixed part of a kernel
  Time call_ns = 500;                       ///< of the host, for each driver call
};

Time copy_time(const Costs& costs, std::size_t bytes);
Time launch_time(const Costs& costs, std::size_t bytes);

/// When work ran.
struct Span {
  Time begin = 0, end = 0;
};

/// An engine that does one thing at a time, whichever is ready first: work takes the first gap that is long enough.
class BusyLine {
 public:
  Span reserve(Time earliest, Time duration);

 private:
  std::map<Time, Time> busy_;  // begin to end, apart from each other
};

/// The time of each host thread. A thread that comes later starts at the first thread's time.
class HostClock {
 public:
  HostClock() : first_(std::this_thread::get_id()) { threads_[first_]; }

  Time now() { return mine().now; }
  void spend(Time ns) { mine().now += ns; }

  /// The calling thread waits until `end`.
  void wait_until(Time end);

  Time first_now() const { return threads_.at(first_).now; }
  Time first_blocked() const { return threads_.at(first_).blocked; }
  Time all_blocked() const;

 private:
  struct Host {
    Time now = 0, blocked = 0;
  };

  Host& mine();

  std::thread::id first_;
  std::map<std::thread::id, Host> threads_;
};

}  // namespace nntap::sim
