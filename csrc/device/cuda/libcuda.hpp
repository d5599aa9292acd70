#pragma once

#include <string>

#include "device/cuda/driver.hpp"

namespace nntap::cuda {

/// The oldest driver that serves: 525, the first for CUDA 12.0, as cuDriverGetVersion numbers it.
inline constexpr int kOldestDriver = 12000;

/// Starts a driver. Why it cannot serve, and how to fix it; empty where it can.
std::string start(const Driver& driver);

/// The machine's driver, opened when first asked for; null where it cannot serve.
const Driver* libcuda();

/// Whether the machine has a driver at all, serving or not.
bool has_libcuda();

/// Why libcuda() is null, and how to fix it; null where it is not.
const char* why_no_libcuda();

}  // namespace nntap::cuda
