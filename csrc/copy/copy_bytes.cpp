#include "copy/copy_bytes.hpp"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace nntap {

#if defined(__x86_64__)

namespace {

// Whole lines, to a line's start.
void stream_lines(char* out, const char* source, std::size_t lines) {
  for (; lines > 0; --lines, out += kCacheLine, source += kCacheLine) {
    const auto* from = reinterpret_cast<const __m128i*>(source);
    auto* to = reinterpret_cast<__m128i*>(out);
    const __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1);
    const __m128i c = _mm_loadu_si128(from + 2), d = _mm_loadu_si128(from + 3);
    _mm_stream_si128(to, a);
    _mm_stream_si128(to + 1, b);
    _mm_stream_si128(to + 2, c);
    _mm_stream_si128(to + 3, d);
  }
  _mm_sfence();  // whoever is told of the copy after this sees it
}

}  // namespace

void copy_bytes(void* out, const void* source, std::size_t bytes) {
  if (bytes < kStreamFromBytes) {
    std::memcpy(out, source, bytes);
    return;
  }
  auto* to = static_cast<char*>(out);
  const auto* from = static_cast<const char*>(source);
  const std::size_t head = (kCacheLine - reinterpret_cast<std::uintptr_t>(to) % kCacheLine) % kCacheLine;
  const std::size_t lines = (bytes - head) / kCacheLine, done = head + lines * kCacheLine;
  std::memcpy(to, from, head);
  stream_lines(to + head, from + head, lines);
  std::memcpy(to + done, from + done, bytes - done);
}

#else

void copy_bytes(void* out, const void* source, std::size_t bytes) { std::memcpy(out, source, bytes); }

#endif

}  // namespace nntap
