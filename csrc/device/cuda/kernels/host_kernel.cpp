#include "device/cuda/kernels/host_kernel.hpp"

#include "device/cuda/kernels/gather_cast_body.hpp"

namespace nntap::cuda {

void run_gather_cast_on_host(void** parameters, unsigned grid_x) {
  const auto& batch = *static_cast<const GatherBatch*>(parameters[0]);
  for (unsigned block = 0; block < grid_x; ++block) {
    for (int thread = 0; thread < kBlockThreads; ++thread) gather_cast(batch, static_cast<int>(block), thread);
  }
}

}  // namespace nntap::cuda
