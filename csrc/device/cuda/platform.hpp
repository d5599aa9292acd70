#pragma once

// Which platform serves the CUDA device now.

#include "device/cuda/driver.hpp"

namespace nntap::cuda {

/// The platform in use: a simulated one that was put in place, else the machine's own. Null where there is none;
/// `why_not()` then says what is missing and how to fix it.
const Platform* platform();
const char* why_not();

/// The simulated platform in place, or null. Does not look at the machine.
const Platform* simulated_platform();

/// Puts a platform in the place of the machine's own, or (null) takes it back. First brings everything in flight on the
/// old one to its end and releases what the device holds there. `platform` must live until it is taken back. Throws.
void use_platform(const Platform* platform);

/// Whether this process was forked from one that had a platform: CUDA does not work in it.
bool forked();

}  // namespace nntap::cuda
