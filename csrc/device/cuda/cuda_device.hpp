#pragma once

#include "copy/device.hpp"

namespace nntap::cuda {

/// NVIDIA GPUs, all of them: a tensor's own device says which.
const AsynchronousDevice& cuda_device();

}  // namespace nntap::cuda
