#include <cstdint>
#include <cstring>

#include "device/cpu/cast_table.hpp"

namespace nntap {
namespace {

float bits_to_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::uint32_t float_to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

#if defined(__aarch64__)
float widen(Half h) {
  __fp16 value;
  std::memcpy(&value, &h.bits, sizeof h.bits);
  return value;
}
template <typename Float>
Half to_half(Float f) {
  const auto value = static_cast<__fp16>(f);
  Half h;
  std::memcpy(&h.bits, &value, sizeof h.bits);
  return h;
}
Half narrow(float f, Half) { return to_half(f); }
#else
float widen(Half h) {
  const std::uint32_t sign = std::uint32_t{h.bits & 0x8000u} << 16, magnitude = h.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // Shifted into place, the exponent is 112 too small; the product fixes it and normalises subnormals.
  const float value = bits_to_float(magnitude << 13) * bits_to_float(0x77800000u);  // 2^112
  return bits_to_float(sign | float_to_bits(value));
}

Half narrow(float f, Half) {
  const std::uint32_t bits = float_to_bits(f), magnitude = bits & 0x7fffffffu;
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  std::uint32_t out;
  if (magnitude > 0x7f800000u) {
    out = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    out = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: subnormal, in units of 2^-24; the sum rounds to even
    out = float_to_bits(bits_to_float(magnitude) + 0.5f) - float_to_bits(0.5f);
  } else {
    out = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  return {static_cast<std::uint16_t>(sign | out)};
}
#endif

float widen(BFloat b) { return bits_to_float(std::uint32_t{b.bits} << 16); }
float widen(float f) { return f; }
float widen(double d) { return static_cast<float>(d); }

BFloat narrow(float f, BFloat) {
  const std::uint32_t bits = float_to_bits(f);
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return {static_cast<std::uint16_t>(nan ? 0x7fc0u : rounded)};
}
float narrow(float f, float) { return f; }
double narrow(float f, double) { return f; }

template <typename From, typename To>
To convert(From value, To to) {
  return narrow(widen(value), to);
}
#if defined(__aarch64__)
// Rounded once, as by torch on this processor. On others, and on every GPU, torch goes through float32 here too.
Half convert(double value, Half) { return to_half(value); }
#endif

template <typename From, typename To>
struct PortableCast {
  static void run(const void* source, void* target, std::size_t count) {
    const auto* in = static_cast<const From*>(source);
    auto* out = static_cast<To*>(target);
    for (std::size_t i = 0; i < count; ++i) out[i] = convert(in[i], To{});
  }
};

}  // namespace

constexpr CastTable kPortableCasts = make_cast_table<PortableCast>();

}  // namespace nntap
