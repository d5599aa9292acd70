#pragma once

#include <dlpack/dlpack.h>

#include <cstddef>
#include <vector>

namespace nntap {

struct CastTable;

/// Converts `count` neighbouring elements. No alignment is asked for beyond the element's own.
using CastFn = void (*)(const void* source, void* out, std::size_t count);

/// The conversions between two of float64, float32, float16 and bfloat16 by one set of instructions. All sets round to
/// nearest even through float32, as torch's `.to()` does (on aarch64, both round float64 to float16 at once), and those
/// of one processor give the same bits. A nan stays a nan, but not always the same one: torch's own vector and scalar
/// code differ in that.
struct CastFlavour {
  const char* name;  ///< "avx512", "avx2+f16c", "neon" or "portable"
  const CastTable* table;

  /// Null where one of the types is none of the four, or both are the same.
  CastFn find(DLDataType from, DLDataType to) const;
};

/// Those that this processor can run, the fastest first.
const std::vector<CastFlavour>& cast_flavours();

/// The fastest conversion between two types, or null.
CastFn find_cast(DLDataType from, DLDataType to);

}  // namespace nntap
