#pragma once

// The loops of a vector cast, over the registers of one set of instructions.

#include <immintrin.h>

#include <cstring>

#include "copy/copy_bytes.hpp"
#include "device/cpu/cast_table.hpp"

namespace nntap {

/// float32 in registers is the middle of every conversion: Registers::load() widens kLanes elements to it, store()
/// narrows, and stream() does so past the caches, to an aligned place.
template <typename Registers, typename From, typename To>
struct VectorCast {
  static constexpr std::size_t kLanes = Registers::kLanes;

  // Records begin on a cache line; a row in the middle of one need not.
  static bool goes_past_the_caches(const To* out, std::size_t count) {
    return count * sizeof(To) >= kStreamFromBytes && reinterpret_cast<std::uintptr_t>(out) % kCacheLine == 0;
  }

  // This and the next: the number of elements done, which is all that fill registers.
  static std::size_t stream(const From* in, To* out, std::size_t count) {
    std::size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) Registers::stream(out + i, Registers::load(in + i));
    _mm_sfence();  // whoever is told of the record after this sees it
    return i;
  }

  static std::size_t store(const From* in, To* out, std::size_t count) {
    std::size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) Registers::store(out + i, Registers::load(in + i));
    return i;
  }

  // Through the same vector code, in a buffer, so that an element's result never depends on its place.
  static void store_tail(const From* in, To* out, std::size_t count) {
    From rest[kLanes] = {};
    To done[kLanes];
    std::memcpy(rest, in, count * sizeof(From));
    Registers::store(done, Registers::load(rest));
    std::memcpy(out, done, count * sizeof(To));
  }

  static void run(const void* source, void* target, std::size_t count) {
    const auto* in = static_cast<const From*>(source);
    auto* out = static_cast<To*>(target);
    const std::size_t done = goes_past_the_caches(out, count) ? stream(in, out, count) : store(in, out, count);
    if (done < count) store_tail(in + done, out + done, count - done);
  }
};

}  // namespace nntap
