#include "device/registry.hpp"

#include "device/cpu/cpu_device.hpp"
#include "device/cuda/cuda_device.hpp"

namespace nntap {

const std::vector<const Device*>& devices() {
  static const auto* all = new std::vector<const Device*>{&cuda::cuda_device(), &cpu_device()};
  return *all;
}

const std::vector<const AsynchronousDevice*>& asynchronous_devices() {
  static const auto* some = new std::vector<const AsynchronousDevice*>{&cuda::cuda_device()};
  return *some;
}

const Device* find_device(const TensorView& source) {
  for (const Device* device : devices()) {
    if (device->owns(source)) return device;
  }
  return nullptr;
}

}  // namespace nntap
