#pragma once

// Conversions between floating-point types, bit-equal to torch's `.to()` but for the payloads of nans. All go through
// float32, as torch's do. Integer and float32 arithmetic, selects instead of branches, about a dozen operations an
// element. Needs subnormal float32s: no flushing to zero.

#include "device/cuda/kernels/portable.hpp"

namespace nntap::cuda {

struct F64 {
  using Bits = double;
  static float widen(double bits) { return static_cast<float>(bits); }
  static double narrow(float value, u32 /*overflow*/) { return value; }
};

struct F32 {
  using Bits = float;
  static float widen(float bits) { return bits; }
  static float narrow(float value, u32 /*overflow*/) { return value; }
};

struct BF16 {
  using Bits = u16;
  static float widen(u16 bits) { return bits_as<float>(u32{bits} << 16); }
  static u16 narrow(float value, u32 /*overflow*/) {
    const u32 bits = bits_as<u32>(value);
    const u32 rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return static_cast<u16>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
  }
};

/// A float of a sign, kExponent and kMantissa bits. Magnitudes from kSpecial on are infinity and nans.
template <typename Bits_, int kExponent, int kMantissa, u32 kSpecial>
struct SmallFloat {
  using Bits = Bits_;
  static constexpr int kSignBit = kExponent + kMantissa;
  static constexpr int kShift = 23 - kMantissa;                  // from float32's mantissa to this one's
  static constexpr u32 kRebias = 128 - (1u << (kExponent - 1));  // from this exponent to float32's

  static float widen(Bits bits) {
    const u32 sign = (u32{bits} >> kSignBit) << 31, shifted = (bits & ((1u << kSignBit) - 1)) << kShift;
    // In place, the exponent is kRebias too small. The product fixes it, and normalises subnormals.
    const u32 finite = bits_as<u32>(bits_as<float>(shifted) * bits_as<float>((127 + kRebias) << 23));
    const u32 special = 0x7f800000u | (shifted & 0x007fffffu);
    return bits_as<float>(sign | (shifted < kSpecial << kShift ? finite : special));
  }

  /// What is too large becomes the magnitude `overflow`.
  static Bits narrow(float value, u32 overflow) {
    const u32 bits = bits_as<u32>(value), sign = bits >> 31 << kSignBit, magnitude = bits & 0x7fffffffu;
    // Half of what is cut off, less one where the last bit kept is even: to nearest, ties to even.
    const u32 half = (1u << (kShift - 1)) - 1 + (magnitude >> kShift & 1u);
    const u32 normal = (magnitude - (kRebias << 23) + half) >> kShift;
    // A float32 whose last bit counts this type's smallest subnormals: the sum rounds to them.
    constexpr u32 kUnit = (kRebias + 1 + kShift) << 23;
    const u32 subnormal = bits_as<u32>(bits_as<float>(magnitude) + bits_as<float>(kUnit)) - kUnit;
    u32 out = magnitude < (kRebias + 1) << 23 ? subnormal : normal;
    out = out < overflow ? out : overflow;
    out = magnitude > 0x7f800000u ? (1u << kSignBit) - 1 : out;  // all ones is a nan of every one of these types
    return static_cast<Bits>(sign | out);
  }
};

using F16 = SmallFloat<u16, 5, 10, 0x7c00>;
using F8E5M2 = SmallFloat<u8, 5, 2, 0x7c>;
using F8E4M3FN = SmallFloat<u8, 4, 3, 0x7f>;

}  // namespace nntap::cuda
