// Compiled for AVX2 and F16C.

#if defined(__x86_64__)

#include "device/cpu/cast_vector.hpp"

namespace nntap {
namespace {

struct Avx2 {
  static constexpr std::size_t kLanes = 8;
  using Floats = __m256;
  static Floats load(const float* p) { return _mm256_loadu_ps(p); }
  static Floats load(const Half* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Floats load(const BFloat* p) {
    const auto bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  }
  static Floats load(const double* p) {
    const auto low = _mm256_cvtpd_ps(_mm256_loadu_pd(p)), high = _mm256_cvtpd_ps(_mm256_loadu_pd(p + 4));
    return _mm256_set_m128(high, low);
  }
  static void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
  static __m128i narrowed(Floats v, Half) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
  static __m128i narrowed(Floats v, BFloat) {
    const auto bits = _mm256_castps_si256(v);
    const auto odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    auto rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    rounded = _mm256_srli_epi32(rounded, 16);
    const auto nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
    const auto packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    return _mm256_castsi256_si128(packed);
  }
  static __m256d low(Floats v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
  static __m256d high(Floats v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
  template <typename Narrow>
  static void store(Narrow* p, Floats v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrowed(v, Narrow{}));
  }
  static void store(double* p, Floats v) {
    _mm256_storeu_pd(p, low(v));
    _mm256_storeu_pd(p + 4, high(v));
  }
  static void stream(float* p, Floats v) { _mm256_stream_ps(p, v); }
  template <typename Narrow>
  static void stream(Narrow* p, Floats v) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), narrowed(v, Narrow{}));
  }
  static void stream(double* p, Floats v) {
    _mm256_stream_pd(p, low(v));
    _mm256_stream_pd(p + 4, high(v));
  }
};

template <typename From, typename To>
using Avx2Cast = VectorCast<Avx2, From, To>;

}  // namespace

constexpr CastTable kAvx2Casts = make_cast_table<Avx2Cast>();

}  // namespace nntap

#endif
