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

/// Makes a context current for a scope and puts back what was.
class ContextScope {
 public:
  ContextScope(const Driver& driver, Context context) : driver_(driver) {
    check(driver, "cuCtxPushCurrent", driver.context_push(context));
  }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
  ~ContextScope() {
    Context popped;
    driver_.context_pop(&popped);
  }

 private:
  const Driver& driver_;
};

}  // namespace nntap::cuda
