#pragma once

#include <cstddef>

namespace nntap {

/// From this size on, what is written goes past the processor's caches: it is read much later, if at all, and writing
/// it the usual way would first read the old lines, and drive the model's own data out.
inline constexpr std::size_t kStreamFromBytes = 256 * 1024;

inline constexpr std::size_t kCacheLine = 64;

/// memcpy(), past the caches where the copy is large.
void copy_bytes(void* out, const void* source, std::size_t bytes);

}  // namespace nntap
