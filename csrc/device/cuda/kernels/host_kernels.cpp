#include "device/cuda/kernels/host_kernels.hpp"

#include <chrono>
#include <cstring>
#include <thread>

#include "device/cuda/kernels/gather_cast_body.hpp"

namespace nntap::cuda {
namespace {

void run_gather_cast(void** parameters, unsigned grid_x) {
  const auto& batch = *static_cast<const GatherBatch*>(parameters[0]);
  for (unsigned block = 0; block < grid_x; ++block) {
    for (int thread = 0; thread < kBlockThreads; ++thread) gather_cast(batch, static_cast<int>(block), thread);
  }
}

void run_spin(void** parameters, unsigned /*grid_x*/) {
  std::this_thread::sleep_for(std::chrono::nanoseconds(*static_cast<const long long*>(parameters[0])));
}

}  // namespace

HostKernel find_host_kernel(const char* name) {
  if (std::strcmp(name, "nntap_gather_cast") == 0) return run_gather_cast;
  if (std::strcmp(name, "nntap_spin") == 0) return run_spin;
  return nullptr;
}

}  // namespace nntap::cuda
