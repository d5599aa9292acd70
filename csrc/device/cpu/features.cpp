#include "device/cpu/features.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace nntap {
namespace {

#if defined(__x86_64__)
// XCR0: which registers the system saves when it switches threads.
unsigned saved_registers() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Asked of the processor itself: __builtin_cpu_supports() is always false where zig is the compiler.
CpuFeatures detect() {
  constexpr unsigned kYmm = 0x6, kZmm = 0xe6;
  constexpr unsigned kBasic = bit_OSXSAVE | bit_AVX | bit_F16C, kAvx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL;
  unsigned a, b, c, d;
  CpuFeatures found;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kBasic) != kBasic) return found;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return found;
  const unsigned saved = saved_registers();
  found.avx2 = (b & bit_AVX2) != 0 && (saved & kYmm) == kYmm;
  found.avx512 = found.avx2 && (b & kAvx512) == kAvx512 && (saved & kZmm) == kZmm;
  return found;
}
#else
CpuFeatures detect() { return {}; }
#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace nntap
