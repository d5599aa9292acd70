#pragma once

// Element types, as DLPack names them.

#include <dlpack/dlpack.h>

#include <cstddef>
#include <string>

namespace nntap {

inline bool operator==(DLDataType a, DLDataType b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}
inline bool operator!=(DLDataType a, DLDataType b) { return !(a == b); }

inline constexpr DLDataType kFloat64{kDLFloat, 64, 1};
inline constexpr DLDataType kFloat32{kDLFloat, 32, 1};
inline constexpr DLDataType kFloat16{kDLFloat, 16, 1};
inline constexpr DLDataType kBFloat16{kDLBfloat, 16, 1};
inline constexpr DLDataType kFloat8E4M3FN{kDLFloat8_e4m3fn, 8, 1};
inline constexpr DLDataType kFloat8E5M2{kDLFloat8_e5m2, 8, 1};

/// Bytes of one element as torch stores it: a packed pair of 4-bit floats (bits 4, lanes 2) is one byte.
inline std::size_t item_size(DLDataType dtype) { return (static_cast<std::size_t>(dtype.bits) * dtype.lanes + 7) / 8; }

std::string name(DLDataType dtype);

}  // namespace nntap
