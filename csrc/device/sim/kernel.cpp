#include "device/sim/kernel.hpp"

#include <cstring>

#include "device/cuda/kernels/gather_cast.hpp"
#include "device/cuda/kernels/host_kernel.hpp"

namespace nntap::sim {
namespace {

std::size_t item_bytes(const cuda::GatherJob& job) {
  switch (job.to) {
    case cuda::Element::kCopy:
      return job.item;
    case cuda::Element::kF64:
      return 8;
    case cuda::Element::kF32:
      return 4;
    case cuda::Element::kF16:
    case cuda::Element::kBF16:
      return 2;
    default:
      return 1;
  }
}

Time gather_cast_time(const Costs& costs, void** parameters) {
  const auto& batch = *static_cast<const cuda::GatherBatch*>(parameters[0]);
  std::size_t bytes = 0;
  for (int i = 0; i < batch.jobs; ++i) {
    bytes += static_cast<std::size_t>(batch.job[i].count) * (batch.job[i].item + item_bytes(batch.job[i]));
  }
  return launch_time(costs, bytes);
}

// Keeps its stream busy for that many nanoseconds. For tests of the simulator; no GPU has it.
Time spin_time(const Costs& costs, void** parameters) {
  return launch_time(costs, 0) + static_cast<Time>(*static_cast<const long long*>(parameters[0]));
}

void spin(void**, unsigned) {}

}  // namespace

const Kernel* find_kernel(const char* name) {
  static const Kernel kernels[] = {
      {cuda::kGatherCastName, {sizeof(cuda::GatherBatch)}, gather_cast_time, cuda::run_gather_cast_on_host},
      {"nntap_spin", {sizeof(long long)}, spin_time, spin},
  };
  for (const Kernel& kernel : kernels) {
    if (std::strcmp(kernel.name, name) == 0) return &kernel;
  }
  return nullptr;
}

}  // namespace nntap::sim
