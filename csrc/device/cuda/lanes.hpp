#pragma once

#include <memory>
#include <vector>

#include "device/cuda/lane.hpp"
#include "device/cuda/platform.hpp"

namespace nntap::cuda {

struct FoundLane {
  std::shared_ptr<Lane> lane;
  const char* why_not = nullptr;  ///< where it is null: why torch has to record this device's tensors
};

/// The lane of a device, opened when it is first recorded on. `stream` is the current one. Throws CudaError.
FoundLane lane_of(const Platform& platform, int device, Stream stream);

/// All lanes that are open.
std::vector<std::shared_ptr<Lane>> open_lanes();

/// Closes every lane and takes the registrations of pinned memory back. No thread may record any more.
void close_lanes();

}  // namespace nntap::cuda
