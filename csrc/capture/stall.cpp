#include "capture/stall.hpp"

#include <atomic>
#include <chrono>

#include "capture/python.hpp"
#include "copy/host_pool.hpp"
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

[[noreturn]] void throw_out_of_memory(const MemoryRequest& request, std::uint64_t own_bytes, const char* why) {
  const HostPoolStats pool = HostPool::instance().stats();
  throw HostMemoryError(
      text("no host memory for a record of ", request.bytes(), " bytes: ", why, ". In use: ", pool.used_bytes,
           " bytes in ", pool.reserved_bytes, " bytes of slabs, of them ", own_bytes, " bytes by this capture; limit: ",
           pool.limit_bytes == 0 ? text("none, the system refused") : text(pool.limit_bytes, " bytes"),
           ". What was recorded so far stays readable. Drop caches and tensors that are no longer needed, record less "
           "(modules=, dtype=), or raise the limit with nntap.set_limits(host_bytes=...)"));
}

}  // namespace

void set_stall_patience(double seconds) {
  NNTAP_CHECK(seconds >= 0, InvalidArgument, "wait_seconds=", seconds, " is not allowed: give a number from 0 on");
  patience = seconds;
}

double stall_patience() { return patience; }

void place_or_wait(MemoryRequest& request, std::uint64_t own_bytes, StallStats& stats) {
  if (request.place()) return;
  const auto start = Clock::now();
  const auto waited = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  ++stats.stalls;
  const LoggedScope logged("stall", request.bytes());
  const char* failure = nullptr;
  bool interrupted = false;
  PyGC_Collect();
  while (!request.place()) {
    if (request.comes_free()) {
    } else if (request.bytes_in_use() <= own_bytes) {
      failure = "all that is in use belongs to this capture, so waiting would not help";
    } else if (!other_threads_live()) {
      failure = "no other thread lives that could free any, so waiting would not help";
    } else if (waited() >= patience) {
      failure = "no other thread freed enough within wait_seconds";
    }
    if (failure != nullptr) break;
    Py_BEGIN_ALLOW_THREADS request.wait(kLookEvery);
    Py_END_ALLOW_THREADS interrupted = PyErr_CheckSignals() != 0;
    if (interrupted) break;
  }
  stats.stall_ns += static_cast<std::uint64_t>(waited() * 1e9);
  if (interrupted) throw PythonErrorSet{};
  if (failure != nullptr) throw_out_of_memory(request, own_bytes, failure);
}

}  // namespace nntap
