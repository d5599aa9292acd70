#pragma once

#include <vector>

#include "device/device.hpp"

namespace nntap {

/// The devices of this build, in an explicit list: a static initialiser could be dropped by the linker.
const std::vector<const Device*>& devices();

/// The device of that type, or null where the build has none.
const Device* find_device(DLDeviceType type);

}  // namespace nntap
