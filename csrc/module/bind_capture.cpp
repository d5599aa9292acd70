#include "capture/hook.hpp"
#include "capture/module_paths.hpp"
#include "capture/recorder_type.hpp"
#include "capture/tap.hpp"
#include "capture/ticket.hpp"
#include "capture/torch_seam.hpp"
#include "module/bind.hpp"
#include "python/python_error.hpp"

namespace py = pybind11;

namespace nntap {

void bind_capture(py::module_& m) {
  m.def(
      "connect", [](py::module_ torch) { torch_seam::connect(torch.ptr()); }, py::arg("torch"),
      "Learns the types and the DLPack exchange API of the imported torch.");
  m.def(
      "set_errors", [](py::type host_memory, py::type cuda) { set_error_classes(host_memory.ptr(), cuda.ptr()); },
      py::arg("host_memory_error"), py::arg("cuda_error"), "The classes to raise.");
  m.def(
      "module_paths",
      [](py::object root) { return py::reinterpret_steal<py::tuple>(module_paths(root.ptr()).release()); },
      py::arg("root"), "The modules below one by path, and the other paths of shared ones.");
  m.attr("OUTPUT") = static_cast<int>(Slot::kOutput);
  m.attr("INPUTS") = static_cast<int>(Slot::kInputs);
  init_ticket_type();
  init_recorder_type(m.ptr());
  init_hook_type(m.ptr());
  init_tap_type();
  init_module_paths();
}

}  // namespace nntap
