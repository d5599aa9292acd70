#pragma once

// Kernels as the simulator runs them: on the host, with what their launches cost.

#include <cstddef>
#include <vector>

#include "device/sim/clock.hpp"

namespace nntap::sim {

struct Kernel {
  const char* name;
  std::vector<std::size_t> parameter_bytes;  ///< of each parameter; a launch copies them
  Time (*time)(const Costs& costs, void** parameters);
  void (*run)(void** parameters, unsigned grid_x);
};

/// The kernel of that name, or null. It lives as long as the process.
const Kernel* find_kernel(const char* name);

}  // namespace nntap::sim
