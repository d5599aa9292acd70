#include "device/cuda/kernels/cubins.hpp"

#include "support/error.hpp"

namespace nntap::cuda {

const Cubin* best_cubin(int major, int minor) {
  const Cubin* best = nullptr;
  for (const Cubin& cubin : cubins()) {
    if (cubin.architecture / 10 == major && cubin.architecture % 10 <= minor) best = &cubin;
  }
  return best;
}

const char* ptx_for(int major, int minor) { return major * 10 + minor >= ptx_architecture() ? ptx() : nullptr; }

std::vector<std::string> architecture_names() {
  std::vector<std::string> names;
  for (const Cubin& cubin : cubins()) names.push_back(text("sm_", cubin.architecture));
  if (ptx() != nullptr) names.push_back(text("ptx_", ptx_architecture()));
  return names;
}

}  // namespace nntap::cuda
