#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "copy/dtype.hpp"
#include "device/cpu/cast.hpp"
#include "module/bind.hpp"
#include "support/error.hpp"

namespace py = pybind11;

namespace nntap {
namespace {

std::vector<std::string> names() {
  std::vector<std::string> found;
  for (const CastFlavour& flavour : cast_flavours()) found.emplace_back(flavour.name);
  return found;
}

void run_cast(const std::string& flavour, std::pair<int, int> from, std::uintptr_t source, std::pair<int, int> to,
              std::uintptr_t out, std::size_t count) {
  const auto& all = cast_flavours();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const CastFlavour& each) { return flavour == each.name; });
  NNTAP_CHECK(found != all.end(), InvalidArgument, "this processor has no casts by ", flavour);
  const CastFn cast = found->find(dtype_of(from), dtype_of(to));
  NNTAP_CHECK(cast != nullptr, InvalidArgument, "no cast from ", name(dtype_of(from)), " to ", name(dtype_of(to)));
  cast(reinterpret_cast<const void*>(source), reinterpret_cast<void*>(out), count);
}

}  // namespace

void bind_casts(py::module_& m) {
  m.def("cast_flavours", names, "The sets of instructions that this processor can cast by, the fastest first.");
  m.def("run_cast", run_cast, py::arg("flavour"), py::arg("source_dtype"), py::arg("source"), py::arg("dtype"),
        py::arg("out"), py::arg("count"),
        "Casts neighbouring elements of the CPU by one set. Types are (DLPack code, bits), memory is addresses.");
}

}  // namespace nntap
