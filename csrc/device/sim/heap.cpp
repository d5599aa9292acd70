#include "device/sim/heap.hpp"

#include <algorithm>

namespace nntap::sim {
namespace {

constexpr std::size_t kSmallest = 64;

std::size_t size_class(std::size_t bytes) {
  std::size_t size = kSmallest;
  while (size < bytes) size *= 2;
  return size;
}

}  // namespace

struct Heap::Allocation {
  DLManagedTensorVersioned managed{};
  std::int64_t bytes = 0;
  std::int64_t stride = 1;
  std::shared_ptr<Heap> heap;
  Class where;
  DeviceMemory memory;

  static void give_back(DLManagedTensorVersioned* managed) {
    const std::unique_ptr<Allocation> self(static_cast<Allocation*>(managed->manager_ctx));
    self->heap->give_back(self->where, static_cast<std::size_t>(self->bytes), std::move(self->memory));
  }
};

DLManagedTensorVersioned* Heap::allocate(int device, cuda::Stream stream, std::size_t bytes) {
  auto made = std::make_unique<Allocation>();
  const std::lock_guard<std::mutex> lock(mutex_);
  PerDevice& on = of_device_.at(static_cast<std::size_t>(device));
  if (bytes > on.room || on.used > on.room - bytes) {
    ++on.refused;
    return nullptr;
  }
  made->where = {device, stream, size_class(bytes)};
  if (auto& free = free_[made->where]; !free.empty()) {
    made->memory = std::move(free.back());
    free.pop_back();
  } else {
    made->memory = torch_services.allocate({kDLCPU, 0}, std::get<2>(made->where));
    if (made->memory.data() == nullptr) return nullptr;
  }
  on.used += bytes;
  on.peak = std::max(on.peak, on.used);
  made->heap = shared_from_this();
  made->bytes = static_cast<std::int64_t>(bytes);
  DLManagedTensorVersioned& managed = made->managed;
  managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  managed.manager_ctx = made.get();
  managed.deleter = Allocation::give_back;
  managed.dl_tensor.data = made->memory.data();
  managed.dl_tensor.device = {kDLCPU, 0};
  managed.dl_tensor.ndim = 1;
  managed.dl_tensor.dtype = {kDLUInt, 8, 1};
  managed.dl_tensor.shape = &made->bytes;
  managed.dl_tensor.strides = &made->stride;
  return &made.release()->managed;
}

void Heap::give_back(const Class& where, std::size_t bytes, DeviceMemory memory) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  of_device_[static_cast<std::size_t>(std::get<0>(where))].used -= bytes;
  if (!closed_) free_[where].push_back(std::move(memory));
}

void Heap::set_room(int device, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  of_device_.at(static_cast<std::size_t>(device)).room = bytes;
}

std::size_t Heap::used(int device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return of_device_.at(static_cast<std::size_t>(device)).used;
}

std::size_t Heap::peak(int device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return of_device_.at(static_cast<std::size_t>(device)).peak;
}

std::size_t Heap::refused(int device) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return of_device_.at(static_cast<std::size_t>(device)).refused;
}

void Heap::close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  free_.clear();
}

}  // namespace nntap::sim
