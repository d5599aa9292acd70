#pragma once

namespace nntap {

/// Vector instructions that the processor has and the system saves the registers of. Always false but on x86-64.
struct CpuFeatures {
  bool avx2 = false;    // with F16C
  bool avx512 = false;  // F, BW and VL, with all of the above
};

const CpuFeatures& cpu_features();

}  // namespace nntap
