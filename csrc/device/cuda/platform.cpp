#include "device/cuda/platform.hpp"

#include <dlpack/dlpack.h>
#include <pthread.h>

#include <atomic>

#include "device/cuda/lanes.hpp"
#include "device/cuda/libcuda.hpp"
#include "device/torch_services.hpp"
#include "support/error.hpp"

namespace nntap::cuda {
namespace {

std::atomic<const Platform*> simulated{nullptr};
std::atomic<bool> is_forked{false};

int device_of(int dl_device_type, int dl_device_id, const void*) {
  return dl_device_type == kDLCUDA ? dl_device_id : -1;
}

int current_stream(int device, Stream* stream) {
  return torch_services.current_stream(kDLCUDA, device, reinterpret_cast<void**>(stream));
}

DeviceMemory allocate(int device, std::size_t bytes) noexcept {
  return torch_services.allocate({kDLCUDA, device}, bytes);
}

const Platform* make_real_platform() {
  const Driver* driver = libcuda();
  if (driver == nullptr) return nullptr;
  pthread_atfork(nullptr, nullptr, [] { is_forked = true; });
  return new Platform{driver, device_of, current_stream, allocate};
}

const Platform* real_platform() {
  static const Platform* once = make_real_platform();
  return once;
}

}  // namespace

const Platform* platform() {
  const Platform* found = simulated_platform();
  return found != nullptr ? found : real_platform();
}

const char* why_not() { return platform() == nullptr ? why_no_libcuda() : nullptr; }

const Platform* simulated_platform() { return simulated.load(std::memory_order_relaxed); }

void use_platform(const Platform* platform) {
  static const int watching = pthread_atfork(nullptr, nullptr, [] { is_forked = is_forked || simulated_platform(); });
  (void)watching;
  close_lanes();
  simulated = nullptr;
  if (platform == nullptr) return;
  const std::string problem = start(*platform->driver);
  NNTAP_CHECK(problem.empty(), CudaError, problem);
  simulated = platform;
}

bool forked() { return is_forked.load(std::memory_order_relaxed); }

}  // namespace nntap::cuda
