#pragma once

#include <memory>
#include <vector>

#include "device/cuda/lane.hpp"
#include "device/cuda/platform.hpp"

namespace nntap::cuda {

/// The lane of a device, opened when it is first recorded on; null where this build has no kernel for it. Throws
/// CudaError.
std::shared_ptr<Lane> lane_of(const Platform& platform, int device, DLDevice as);

/// All lanes that are open.
std::vector<std::shared_ptr<Lane>> open_lanes();

/// Closes every lane and takes the registrations of pinned memory back. No thread may record any more.
void close_lanes();

}  // namespace nntap::cuda
