#pragma once

// The compiled kernels. compile_cubins.py compiles them while the core is built, and writes the source that
// defines cubins(), ptx() and ptx_architecture().

#include <cstddef>
#include <string>
#include <vector>

namespace nntap::cuda {

/// Machine code for one architecture: an ELF image, as cuModuleLoadData takes it.
struct Cubin {
  int architecture;  ///< 90 is sm_90: compute capability 9.0
  const void* data;
  std::size_t size;
};

/// From the oldest architecture to the newest; empty in a build without NVRTC.
const std::vector<Cubin>& cubins();

/// The same kernels for GPUs that came after this build, compiled by the driver when they are loaded; a text that ends
/// with a zero byte. Null in a build without NVRTC.
const char* ptx();

/// The oldest architecture that ptx() works on, 0 where there is none.
int ptx_architecture();

/// The best cubin for a GPU: of its major compute capability, with the highest minor that is not above its own. Null
/// where there is none; the GPU then needs ptx().
const Cubin* best_cubin(int major, int minor);

/// ptx() where it works on that GPU, else null.
const char* ptx_for(int major, int minor);

/// What this build has, such as "sm_90" and "ptx_80".
std::vector<std::string> architecture_names();

}  // namespace nntap::cuda
