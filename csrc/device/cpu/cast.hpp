#pragma once

#include <dlpack/dlpack.h>

#include <cstddef>

namespace nntap {

/// Converts `count` neighbouring elements. No alignment is asked for beyond the element's own.
using CastFn = void (*)(const void* source, void* out, std::size_t count);

/// The conversion between two of float64, float32, float16 and bfloat16, the fastest this processor has, or null.
/// Rounds to nearest even through float32, as torch's `.to()` does; a nan stays a nan (torch itself gives different
/// nan payloads from its vector and its scalar code).
CastFn find_cast(DLDataType from, DLDataType to);

/// What find_cast() found on this processor: "avx512", "avx2+f16c", "neon" or "portable".
const char* cast_flavour();

}  // namespace nntap
