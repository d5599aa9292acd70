#pragma once

#include <dlpack/dlpack.h>

#include <utility>

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

}  // namespace nntap
