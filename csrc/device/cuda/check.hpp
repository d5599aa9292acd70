#pragma once

// Calls of the driver that must succeed, and the device's context around them.

#include "device/cuda/driver.hpp"
#include "support/error.hpp"

namespace nntap::cuda {

/// Throws CudaError with the call's name and what the driver calls the error.
[[noreturn]] void throw_driver_error(const Driver& driver, const char* call, Result result);

inline void check(const Driver& driver, const char* call, Result result) {
  if (result != kSuccess) throw_driver_error(driver, call, result);
}

/// Whether what is enqueued on the stream now becomes a part of a CUDA graph, or (the default stream, while another one
/// is captured) would end its capture. In a scope in which captures are no hindrance. Throws CudaError.
bool is_captured(const Driver& driver, Stream stream);

/// Makes a call that gives something back, or waits for the end of something, and once more where it fails: on these
/// paths an error cannot be reported. Says whether it worked; where not, the device is lost, and nothing of it is under
/// way.
template <typename Call>
bool insist(Call call) noexcept {
  return call() == kSuccess || call() == kSuccess;
}

/// Puts back what was current before a push. Tried once more where it fails: the next call would go to a wrong device.
inline void leave_context(const Driver& driver) noexcept {
  Context popped;
  if (driver.context_pop(&popped) != kSuccess) driver.context_pop(&popped);
}

/// Lets this thread make any call for a scope while a graph is being captured somewhere: what is done in it touches no
/// captured stream, and in the usual mode asking an event or pinning memory would end the capture of another thread.
class CaptureScope {
 public:
  explicit CaptureScope(const Driver& driver) noexcept
      : driver_(driver), result_(driver.exchange_capture_mode(&mode_)) {}
  CaptureScope(const CaptureScope&) = delete;
  CaptureScope& operator=(const CaptureScope&) = delete;
  ~CaptureScope() {
    if (result_ == kSuccess) insist([&] { return driver_.exchange_capture_mode(&mode_); });
  }

  Result result() const { return result_; }

 private:
  const Driver& driver_;
  int mode_ = kCaptureModeRelaxed;  // the thread's own while the scope lasts
  const Result result_;
};

/// Makes a context current for a scope, in which a capture is no hindrance, and puts back what was.
class ContextScope {
 public:
  ContextScope(const Driver& driver, Context context) : driver_(driver), capture_(driver) {
    check(driver, "cuThreadExchangeStreamCaptureMode", capture_.result());
    check(driver, "cuCtxPushCurrent", driver.context_push(context));
  }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
  ~ContextScope() { leave_context(driver_); }

 private:
  const Driver& driver_;
  const CaptureScope capture_;
};

/// The same for what must not throw: asks whether it worked.
class NoexceptContextScope {
 public:
  NoexceptContextScope(const Driver& driver, Context context) noexcept
      : driver_(driver), capture_(driver), entered_(insist([&] { return driver.context_push(context); })) {}
  NoexceptContextScope(const NoexceptContextScope&) = delete;
  NoexceptContextScope& operator=(const NoexceptContextScope&) = delete;
  ~NoexceptContextScope() {
    if (entered_) leave_context(driver_);
  }

  bool entered() const { return entered_; }

 private:
  const Driver& driver_;
  const CaptureScope capture_;
  const bool entered_;
};

}  // namespace nntap::cuda
