#pragma once

#include "device/device.hpp"

namespace nntap {

/// The host itself: a copy is complete when gather() returns.
const Device& cpu_device();

}  // namespace nntap
