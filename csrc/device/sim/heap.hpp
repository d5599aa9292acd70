#pragma once

// Device memory as torch's allocator hands it out: what was freed on a stream goes at once to the next who asks on that
// stream, though work that was enqueued before may still use it. No address is given back before the simulation ends.

#include <dlpack/dlpack.h>

#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "device/cuda/driver.hpp"
#include "device/torch_services.hpp"

namespace nntap::sim {

/// Outlives its simulation as long as somebody holds memory of it. Its mutex is taken last.
class Heap : public std::enable_shared_from_this<Heap> {
 public:
  explicit Heap(int devices) : of_device_(static_cast<std::size_t>(devices)) {}

  /// Memory that belongs to the stream, 64-byte aligned; null where the device has no room for it.
  DLManagedTensorVersioned* allocate(int device, cuda::Stream stream, std::size_t bytes);

  /// The most that may be allocated on a device at a time.
  void set_room(int device, std::size_t bytes);

  /// Bytes that are allocated on a device now, and the most that were.
  std::size_t used(int device) const;
  std::size_t peak(int device) const;

  /// How often a device had no room.
  std::size_t refused(int device) const;

  /// The simulation is over: nothing that is enqueued will ever run.
  void close();

 private:
  struct Allocation;
  using Class = std::tuple<int, cuda::Stream, std::size_t>;  // device, stream, size

  struct PerDevice {
    std::size_t used = 0, peak = 0, refused = 0, room = SIZE_MAX;
  };

  void give_back(const Class& where, std::size_t bytes, DeviceMemory memory) noexcept;

  mutable std::mutex mutex_;
  bool closed_ = false;
  std::vector<PerDevice> of_device_;
  std::map<Class, std::vector<DeviceMemory>> free_;  // the last freed is the first to go
};

}  // namespace nntap::sim
