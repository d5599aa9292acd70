#pragma once

#include "copy/device.hpp"

namespace nntap {

/// The host itself.
const Device& cpu_device();

}  // namespace nntap
