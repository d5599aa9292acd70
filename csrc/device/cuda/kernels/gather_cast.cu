// The kernels, compiled by compile_cubins.py. Launched through the driver table by these names.

#include "device/cuda/kernels/gather_cast_body.hpp"

extern "C" __global__ void __launch_bounds__(nntap::cuda::kBlockThreads)
    nntap_gather_cast(const __grid_constant__ nntap::cuda::GatherBatch batch) {
  nntap::cuda::gather_cast(batch, static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x));
}

// Keeps its stream busy for so long. The tests put it before what they want to come late.
extern "C" __global__ void nntap_spin(long long nanoseconds) {
  long long start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - start < nanoseconds);
}
