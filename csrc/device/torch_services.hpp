#pragma once

// What devices need of torch. The torch seam provides it, so that they know neither torch nor Python.

#include <dlpack/dlpack.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace nntap {

/// Memory of torch's allocator. Given back when destroyed, on any thread, with or without the GIL.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(DLManagedTensorVersioned* owner) : owner_(owner) {}
  DeviceMemory(DeviceMemory&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(owner_, other.owner_);
    return *this;
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() {
    if (owner_ != nullptr && owner_->deleter != nullptr) owner_->deleter(owner_);
  }

  void* data() const {
    return owner_ == nullptr ? nullptr : static_cast<char*>(owner_->dl_tensor.data) + owner_->dl_tensor.byte_offset;
  }

 private:
  DLManagedTensorVersioned* owner_ = nullptr;
};

struct TorchServices {
  /// The stream that torch's operations of this thread go to now. 0 on success.
  int (*current_stream)(DLDeviceType type, int device, void** stream) = nullptr;

  /// Memory on a device, in the order of its current stream; empty when torch has none.
  DeviceMemory (*allocate)(DLDevice device, std::size_t bytes) noexcept = nullptr;

  /// The types of which what is too large for float8_e4m3fn becomes nan, not 448: all before torch 2.13, some in
  /// between.
  std::vector<DLDataType> e4m3fn_overflows_from;

  bool e4m3fn_saturates(DLDataType from) const {
    return std::none_of(e4m3fn_overflows_from.begin(), e4m3fn_overflows_from.end(),
                        [&](DLDataType type) { return type.code == from.code && type.bits == from.bits; });
  }
};

/// Filled once, when the core meets torch.
inline TorchServices torch_services;

}  // namespace nntap
