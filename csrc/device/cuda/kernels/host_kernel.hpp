#pragma once

// The kernel as a host function, for the tests and the simulated driver.

namespace nntap::cuda {

/// Runs a launch of `grid_x` blocks to its end; parameters as cuLaunchKernel takes them.
void run_gather_cast_on_host(void** parameters, unsigned grid_x);

}  // namespace nntap::cuda
