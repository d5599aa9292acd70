#pragma once

// What devices need of torch. The torch seam provides it, so that they know neither torch nor Python.

#include <dlpack/dlpack.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "copy/device_memory.hpp"

namespace nntap {

struct TorchServices {
  /// The stream that torch's operations of this thread go to now. 0 on success.
  int (*current_stream)(DLDeviceType type, int device, void** stream) = nullptr;

  /// Memory on a device, in the order of its current stream; empty when torch has none.
  DeviceMemory (*allocate)(DLDevice device, std::size_t bytes) noexcept = nullptr;

  /// The types of which what is too large for float8_e4m3fn becomes nan, not 448: all before torch 2.13, some in
  /// between.
  std::vector<DLDataType> e4m3fn_overflows_from;

  bool e4m3fn_saturates(DLDataType from) const {
    return std::none_of(e4m3fn_overflows_from.begin(), e4m3fn_overflows_from.end(),
                        [&](DLDataType type) { return type.code == from.code && type.bits == from.bits; });
  }
};

/// Filled when the core meets torch; the last member when a recording first asks for that type.
inline TorchServices torch_services;

}  // namespace nntap
