#include "device/cuda/check.hpp"

namespace nntap::cuda {

bool is_captured(const Driver& driver, Stream stream) {
  int capturing = kStreamNotCapturing;
  const Result result = driver.stream_is_capturing(stream, &capturing);
  if (result == kCaptureImplicit) return true;
  check(driver, "cuStreamIsCapturing", result);
  return capturing != kStreamNotCapturing;
}

void throw_driver_error(const Driver& driver, const char* call, Result result) {
  const char* name = nullptr;
  if (driver.error_name(result, &name) != kSuccess || name == nullptr) name = "an unknown error";
  throw CudaError(
      text(call, " failed with ", name, " (", result,
           "). What has landed stays readable; an error that comes back at every call was made by an earlier "
           "kernel of the process, which has to be started again"));
}

}  // namespace nntap::cuda
