#pragma once

#include "device/device.hpp"

namespace nntap {

/// The host itself.
const Device& cpu_device();

}  // namespace nntap
