#pragma once

// The kernels as host functions, for the simulated driver.

namespace nntap::cuda {

/// Runs a launch of `grid_x` blocks to its end; parameters as cuLaunchKernel takes them.
using HostKernel = void (*)(void** parameters, unsigned grid_x);

/// Null where no kernel has that name.
HostKernel find_host_kernel(const char* name);

}  // namespace nntap::cuda
