#include "module/bind.hpp"
#include "nnsight/controller_call.hpp"
#include "nnsight/handle.hpp"

namespace py = pybind11;

namespace nntap {

void bind_nnsight(py::module_& m) {
  m.def(
      "begin_quiet_run", [](py::object interleaver) { begin_quiet_run(interleaver.ptr()); }, py::arg("interleaver"),
      "Has calls of its modules do no more than record.");
  m.def(
      "end_quiet_run", [](py::object interleaver) { end_quiet_run(interleaver.ptr()); }, py::arg("interleaver"),
      "The run is over.");
  init_handle_type(m.ptr());
  init_controller_call_type(m.ptr());
}

}  // namespace nntap
