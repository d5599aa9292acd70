#pragma once

#include <vector>

#include "copy/device.hpp"

namespace nntap {

/// The devices of this build, in an explicit list: a static initialiser could be dropped by the linker.
const std::vector<const Device*>& devices();

/// Those of them whose copies land some time later.
const std::vector<const AsynchronousDevice*>& asynchronous_devices();

/// The device that holds the tensor, or null where the build has none.
const Device* find_device(const TensorView& source);

}  // namespace nntap
