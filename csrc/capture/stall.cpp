#include "capture/stall.hpp"

#include <atomic>
#include <chrono>

#include "copy/host_pool.hpp"
#include "python/python.hpp"
#include "support/error.hpp"
#include "support/event_log.hpp"

namespace nntap {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kLookEvery = std::chrono::milliseconds(50);  // how soon Ctrl-C and vanished threads are noticed

std::atomic<double> patience{30.0};

bool other_threads_live() {
  PyThreadState* first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
  return first != nullptr && PyThreadState_Next(first) != nullptr;
}

// Counts a stall when it begins, and its time when it ends, however it ends.
class CountedStall {
 public:
  explicit CountedStall(StallStats& stats) : stats_(stats) { ++stats_.stalls; }
  CountedStall(const CountedStall&) = delete;
  CountedStall& operator=(const CountedStall&) = delete;
  ~CountedStall() {
    stats_.stall_ns +=
        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count());
  }
  Clock::time_point start() const { return start_; }

 private:
  StallStats& stats_;
  const Clock::time_point start_ = Clock::now();
};

[[noreturn]] void throw_out_of_memory(const MemoryRequest& request, const char* why) {
  const HostPoolStats pool = HostPool::instance().stats();
  throw HostMemoryError(text(
      "no host memory for a record of ", request.bytes(), " bytes: ", why, ". In use: ", request.bytes_in_use(),
      " bytes, of them ", request.own_bytes(), " by this capture; limit: ",
      pool.limit_bytes == 0 ? text("none, the system refused") : text(pool.limit_bytes, " bytes"),
      ". What was recorded so far stays readable. Drop caches and tensors that are no longer needed, record less "
      "(modules=, dtype=), or ",
      pool.limit_bytes == 0 ? "free memory of this machine" : "raise the limit with nntap.set_limits(host_bytes=...)"));
}

// Why it is no use to wait any longer, or null.
const char* hopeless(const MemoryRequest& request, double waited) {
  if (request.comes_free()) return nullptr;
  if (request.bytes_in_use() <= request.own_bytes()) {
    return "all that is in use belongs to this capture, so waiting would not help";
  }
  if (!other_threads_live()) return "no other thread lives that could free any, so waiting would not help";
  if (waited >= patience) return "no other thread freed enough within wait_seconds";
  return nullptr;
}

// False when a signal handler has raised.
bool wait_a_little(MemoryRequest& request) {
  {
    const WithoutGil others_run;
    request.wait(kLookEvery);
  }
  return PyErr_CheckSignals() == 0;
}

// One stall: returns when the request is placed, or throws.
void wait_until_placed(MemoryRequest& request, Clock::time_point start) {
  // A full collection takes a third of a second in a process with large libraries. So it comes after the first look:
  // a thread that is done with its records has mostly dropped them by then.
  bool collected = false;
  do {
    const double waited = std::chrono::duration<double>(Clock::now() - start).count();
    const char* why = hopeless(request, waited);
    if (!collected && (why != nullptr || Clock::now() - start >= kLookEvery)) {
      PyGC_Collect();
      collected = true;
    } else if (why != nullptr) {
      if (request.place()) return;  // what was under way may have come free meanwhile
      throw_out_of_memory(request, why);
    } else if (!wait_a_little(request)) {
      throw PythonErrorSet{};
    }
  } while (!request.place());
}

}  // namespace

void set_stall_patience(double seconds) {
  NNTAP_CHECK(seconds >= 0, InvalidArgument, "wait_seconds=", seconds, " is not allowed: give a number from 0 on");
  patience = seconds;
}

double stall_patience() { return patience; }

void place_or_wait(MemoryRequest& request, StallStats& stats) {
  if (request.place()) return;
  if (!request.can_fit()) throw_out_of_memory(request, "the limit is below what this one record takes");
  const LoggedScope logged("stall", request.bytes());
  const CountedStall counted(stats);
  request.begin_stall();
  wait_until_placed(request, counted.start());
  request.end_stall();
}

}  // namespace nntap
