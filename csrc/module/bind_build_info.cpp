#include <dlpack/dlpack.h>
#include <pybind11/stl.h>

#include "device/cpu/cast.hpp"
#include "device/cpu/torch_threads.hpp"
#include "device/cuda/kernels/cubins.hpp"
#include "device/registry.hpp"
#include "module/bind.hpp"
#include "support/error.hpp"

namespace py = pybind11;

namespace nntap {
namespace {

#if defined(__clang__)
constexpr const char* kCompiler = "Clang " __clang_version__;
#else
constexpr const char* kCompiler = "GCC " __VERSION__;
#endif

py::dict build_info() {
  py::list names;
  for (const Device* device : devices()) names.append(device->name());
  py::dict out;
  out["version"] = NNTAP_VERSION;
  out["compiler"] = kCompiler;
  out["dlpack"] = text(DLPACK_MAJOR_VERSION, ".", DLPACK_MINOR_VERSION);
  out["cpu_casts"] = cast_flavours().front().name;
  out["cpu_threads"] = torch_threads();
  out["devices"] = names;
  out["cuda_architectures"] = cuda::architecture_names();
  return out;
}

}  // namespace

void bind_build_info(py::module_& m) {
  m.def("build_info", build_info, "How the core was built and what it found on this machine.");
}

}  // namespace nntap
