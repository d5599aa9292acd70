#include "device/cpu/cast.hpp"

#include <cstdint>
#include <cstring>

#include "copy/copy_bytes.hpp"
#include "copy/dtype.hpp"
#include "device/cpu/features.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

// A type of its own for each 16-bit float, so that overloads tell them apart.
struct Half {
  std::uint16_t bits;
};
struct BFloat {
  std::uint16_t bits;
};

#if defined(__aarch64__)
float widen(Half h) {
  __fp16 value;
  std::memcpy(&value, &h.bits, sizeof h.bits);
  return value;
}
Half narrow(float f, Half) {
  const auto value = static_cast<__fp16>(f);
  Half h;
  std::memcpy(&h.bits, &value, sizeof h.bits);
  return h;
}
#else
float widen(Half h) {
  const std::uint32_t sign = std::uint32_t{h.bits & 0x8000u} << 16, magnitude = h.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // Shifted into place, the exponent is 112 too small; the product mends it and normalises subnormals.
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
void cast_portable(const void* source, void* out, std::size_t count) {
  const auto* in = static_cast<const From*>(source);
  auto* to = static_cast<To*>(out);
  for (std::size_t i = 0; i < count; ++i) to[i] = narrow(widen(in[i]), To{});
}

#if defined(__x86_64__)

#define NNTAP_AVX2 __attribute__((target("avx2,f16c")))
#define NNTAP_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx2,f16c")))

bool has_avx2() { return cpu_features().avx2; }
bool has_avx512() { return cpu_features().avx512; }

// float32 in registers is the middle of every conversion: load<From> widens 8 or 16 elements to it, store<To> narrows,
// and stream<To> does so past the caches, to an aligned place.
struct Avx2 {
  static constexpr std::size_t kLanes = 8;
  using Floats = __m256;
  NNTAP_AVX2 static Floats load(const float* p) { return _mm256_loadu_ps(p); }
  NNTAP_AVX2 static Floats load(const Half* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  NNTAP_AVX2 static Floats load(const BFloat* p) {
    const auto bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  }
  NNTAP_AVX2 static Floats load(const double* p) {
    const auto low = _mm256_cvtpd_ps(_mm256_loadu_pd(p)), high = _mm256_cvtpd_ps(_mm256_loadu_pd(p + 4));
    return _mm256_set_m128(high, low);
  }
  NNTAP_AVX2 static void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
  NNTAP_AVX2 static __m128i narrowed(Floats v, Half) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
  NNTAP_AVX2 static __m128i narrowed(Floats v, BFloat) {
    const auto bits = _mm256_castps_si256(v);
    const auto odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    auto rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    rounded = _mm256_srli_epi32(rounded, 16);
    const auto nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
    const auto packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    return _mm256_castsi256_si128(packed);
  }
  NNTAP_AVX2 static __m256d low(Floats v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
  NNTAP_AVX2 static __m256d high(Floats v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
  template <typename Narrow>
  NNTAP_AVX2 static void store(Narrow* p, Floats v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrowed(v, Narrow{}));
  }
  NNTAP_AVX2 static void store(double* p, Floats v) {
    _mm256_storeu_pd(p, low(v));
    _mm256_storeu_pd(p + 4, high(v));
  }
  NNTAP_AVX2 static void stream(float* p, Floats v) { _mm256_stream_ps(p, v); }
  template <typename Narrow>
  NNTAP_AVX2 static void stream(Narrow* p, Floats v) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), narrowed(v, Narrow{}));
  }
  NNTAP_AVX2 static void stream(double* p, Floats v) {
    _mm256_stream_pd(p, low(v));
    _mm256_stream_pd(p + 4, high(v));
  }
};

struct Avx512 {
  static constexpr std::size_t kLanes = 16;
  using Floats = __m512;
  NNTAP_AVX512 static Floats load(const float* p) { return _mm512_loadu_ps(p); }
  NNTAP_AVX512 static Floats load(const Half* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  NNTAP_AVX512 static Floats load(const BFloat* p) {
    const auto bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  }
  NNTAP_AVX512 static Floats load(const double* p) {
    const auto low = _mm512_cvtpd_ps(_mm512_loadu_pd(p)), high = _mm512_cvtpd_ps(_mm512_loadu_pd(p + 8));
    const auto joined =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_castps_si256(low)), _mm256_castps_si256(high), 1);
    return _mm512_castsi512_ps(joined);
  }
  NNTAP_AVX512 static void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  NNTAP_AVX512 static __m256i narrowed(Floats v, Half) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
  NNTAP_AVX512 static __m256i narrowed(Floats v, BFloat) {
    const auto bits = _mm512_castps_si512(v);
    const auto odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    auto rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    rounded = _mm512_srli_epi32(rounded, 16);
    rounded = _mm512_mask_set1_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), 0x7fc0);
    return _mm512_cvtepi32_epi16(rounded);
  }
  NNTAP_AVX512 static __m512d low(Floats v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
  NNTAP_AVX512 static __m512d high(Floats v) {
    return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm512_extracti64x4_epi64(_mm512_castps_si512(v), 1)));
  }
  template <typename Narrow>
  NNTAP_AVX512 static void store(Narrow* p, Floats v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrowed(v, Narrow{}));
  }
  NNTAP_AVX512 static void store(double* p, Floats v) {
    _mm512_storeu_pd(p, low(v));
    _mm512_storeu_pd(p + 8, high(v));
  }
  NNTAP_AVX512 static void stream(float* p, Floats v) { _mm512_stream_ps(p, v); }
  template <typename Narrow>
  NNTAP_AVX512 static void stream(Narrow* p, Floats v) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), narrowed(v, Narrow{}));
  }
  NNTAP_AVX512 static void stream(double* p, Floats v) {
    _mm512_stream_pd(p, low(v));
    _mm512_stream_pd(p + 8, high(v));
  }
};

// Records begin on a cache line; a row in the middle of one need not.
template <typename To>
bool goes_past_the_caches(const To* out, std::size_t count) {
  return count * sizeof(To) >= kStreamFromBytes && reinterpret_cast<std::uintptr_t>(out) % kCacheLine == 0;
}

// The number of elements done: all that fill registers.
template <typename From, typename To>
NNTAP_AVX2 std::size_t stream_avx2(const From* in, To* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + Avx2::kLanes <= count; i += Avx2::kLanes) Avx2::stream(to + i, Avx2::load(in + i));
  _mm_sfence();  // whoever is told of the record after this sees it
  return i;
}

template <typename From, typename To>
NNTAP_AVX512 std::size_t stream_avx512(const From* in, To* to, std::size_t count) {
  std::size_t i = 0;
  for (; i + Avx512::kLanes <= count; i += Avx512::kLanes) Avx512::stream(to + i, Avx512::load(in + i));
  _mm_sfence();
  return i;
}

// The tail goes through the same vector code, in a buffer, so that an element's result never depends on its place.
template <typename From, typename To>
NNTAP_AVX2 void cast_avx2(const void* source, void* out, std::size_t count) {
  const auto* in = static_cast<const From*>(source);
  auto* to = static_cast<To*>(out);
  std::size_t i = goes_past_the_caches(to, count) ? stream_avx2(in, to, count) : 0;
  for (; i + Avx2::kLanes <= count; i += Avx2::kLanes) Avx2::store(to + i, Avx2::load(in + i));
  if (i == count) return;
  From rest[Avx2::kLanes] = {};
  To done[Avx2::kLanes];
  std::memcpy(rest, in + i, (count - i) * sizeof(From));
  Avx2::store(done, Avx2::load(rest));
  std::memcpy(to + i, done, (count - i) * sizeof(To));
}

template <typename From, typename To>
NNTAP_AVX512 void cast_avx512(const void* source, void* out, std::size_t count) {
  const auto* in = static_cast<const From*>(source);
  auto* to = static_cast<To*>(out);
  std::size_t i = goes_past_the_caches(to, count) ? stream_avx512(in, to, count) : 0;
  for (; i + Avx512::kLanes <= count; i += Avx512::kLanes) Avx512::store(to + i, Avx512::load(in + i));
  if (i == count) return;
  From rest[Avx512::kLanes] = {};
  To done[Avx512::kLanes];
  std::memcpy(rest, in + i, (count - i) * sizeof(From));
  Avx512::store(done, Avx512::load(rest));
  std::memcpy(to + i, done, (count - i) * sizeof(To));
}

template <typename From, typename To>
CastFn pick() {
  if (has_avx512()) return cast_avx512<From, To>;
  if (has_avx2()) return cast_avx2<From, To>;
  return cast_portable<From, To>;
}

#else

template <typename From, typename To>
CastFn pick() {
  return cast_portable<From, To>;
}

#endif

template <typename From>
CastFn pick_to(DLDataType to) {
  if (to == kFloat64) return pick<From, double>();
  if (to == kFloat32) return pick<From, float>();
  if (to == kFloat16) return pick<From, Half>();
  if (to == kBFloat16) return pick<From, BFloat>();
  return nullptr;
}

}  // namespace

CastFn find_cast(DLDataType from, DLDataType to) {
  if (from == kFloat64) return pick_to<double>(to);
  if (from == kFloat32) return pick_to<float>(to);
  if (from == kFloat16) return pick_to<Half>(to);
  if (from == kBFloat16) return pick_to<BFloat>(to);
  return nullptr;
}

const char* cast_flavour() {
#if defined(__x86_64__)
  return has_avx512() ? "avx512" : has_avx2() ? "avx2+f16c" : "portable";
#elif defined(__aarch64__)
  return "neon";
#else
  return "portable";
#endif
}

}  // namespace nntap
