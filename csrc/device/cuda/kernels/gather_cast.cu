// The kernel, compiled by compile_cubins.py. Launched through the driver table by this name.

#include "device/cuda/kernels/gather_cast_body.hpp"

extern "C" __global__ void __launch_bounds__(nntap::cuda::kBlockThreads)
    nntap_gather_cast(const __grid_constant__ nntap::cuda::GatherBatch batch) {
  nntap::cuda::gather_cast(batch, static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x));
}
