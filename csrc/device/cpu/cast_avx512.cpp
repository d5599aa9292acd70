// Compiled for AVX-512 F, BW and VL.

#if defined(__x86_64__)

#include "device/cpu/cast_vector.hpp"

namespace nntap {
namespace {

struct Avx512 {
  static constexpr std::size_t kLanes = 16;
  using Floats = __m512;
  static Floats load(const float* p) { return _mm512_loadu_ps(p); }
  static Floats load(const Half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static Floats load(const BFloat* p) {
    const auto bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  }
  static Floats load(const double* p) {
    const auto low = _mm512_cvtpd_ps(_mm512_loadu_pd(p)), high = _mm512_cvtpd_ps(_mm512_loadu_pd(p + 8));
    const auto joined =
        _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_castps_si256(low)), _mm256_castps_si256(high), 1);
    return _mm512_castsi512_ps(joined);
  }
  static void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  static __m256i narrowed(Floats v, Half) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
  static __m256i narrowed(Floats v, BFloat) {
    const auto bits = _mm512_castps_si512(v);
    const auto odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    auto rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    rounded = _mm512_srli_epi32(rounded, 16);
    rounded = _mm512_mask_set1_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), 0x7fc0);
    return _mm512_cvtepi32_epi16(rounded);
  }
  static __m512d low(Floats v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
  static __m512d high(Floats v) {
    return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm512_extracti64x4_epi64(_mm512_castps_si512(v), 1)));
  }
  template <typename Narrow>
  static void store(Narrow* p, Floats v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrowed(v, Narrow{}));
  }
  static void store(double* p, Floats v) {
    _mm512_storeu_pd(p, low(v));
    _mm512_storeu_pd(p + 8, high(v));
  }
  static void stream(float* p, Floats v) { _mm512_stream_ps(p, v); }
  template <typename Narrow>
  static void stream(Narrow* p, Floats v) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), narrowed(v, Narrow{}));
  }
  static void stream(double* p, Floats v) {
    _mm512_stream_pd(p, low(v));
    _mm512_stream_pd(p + 8, high(v));
  }
};

template <typename From, typename To>
using Avx512Cast = VectorCast<Avx512, From, To>;

}  // namespace

constexpr CastTable kAvx512Casts = make_cast_table<Avx512Cast>();

}  // namespace nntap

#endif
