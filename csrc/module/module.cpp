// The table of contents of nntap._core.

#include <pybind11/pybind11.h>

#include "capture/hook.hpp"
#include "capture/module_paths.hpp"
#include "capture/python_error.hpp"
#include "capture/recorder.hpp"
#include "capture/tap.hpp"
#include "capture/ticket.hpp"
#include "capture/torch_seam.hpp"
#include "module/bind.hpp"
#include "nnsight/controller_call.hpp"
#include "nnsight/handle.hpp"
#include "support/error.hpp"

namespace py = pybind11;

namespace {

// pybind11 asks each translator in turn; this one hands every exception of the core to set_python_error().
void translate(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const py::builtin_exception&) {
    throw;
  } catch (const py::error_already_set&) {
    throw;
  } catch (...) {
    nntap::set_python_error();
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core of nntap. Not a public interface; use the nntap package.";
  py::register_local_exception_translator(translate);

  m.def(
      "connect", [](py::module_ torch) { nntap::torch_seam::connect(torch.ptr()); }, py::arg("torch"),
      "Learns the types and the DLPack exchange API of the imported torch.");
  m.def(
      "set_errors",
      [](py::type host_memory, py::type cuda) { nntap::set_error_classes(host_memory.ptr(), cuda.ptr()); },
      py::arg("host_memory_error"), py::arg("cuda_error"), "The classes to raise.");
  m.def(
      "module_paths",
      [](py::object root) { return py::reinterpret_steal<py::tuple>(nntap::module_paths(root.ptr()).release()); },
      py::arg("root"), "The modules below one by path, and the other paths of shared ones.");
  m.def(
      "begin_quiet_run", [](py::object interleaver) { nntap::begin_quiet_run(interleaver.ptr()); },
      py::arg("interleaver"), "Has calls of its modules do no more than record.");
  m.def(
      "end_quiet_run", [](py::object interleaver) { nntap::end_quiet_run(interleaver.ptr()); }, py::arg("interleaver"),
      "The run is over.");
  m.attr("OUTPUT") = static_cast<int>(nntap::Slot::kOutput);
  m.attr("INPUTS") = static_cast<int>(nntap::Slot::kInputs);

  nntap::init_ticket_type();
  nntap::init_recorder_type(m.ptr());
  nntap::init_hook_type(m.ptr());
  nntap::init_tap_type();
  nntap::init_module_paths();
  nntap::init_handle_type(m.ptr());
  nntap::init_controller_call_type(m.ptr());
  nntap::bind_memory(m);
  nntap::bind_build_info(m);
  nntap::bind_cuda(m);

  py::module_ testing = m.def_submodule("testing", "What tests drive the core with.");
  nntap::bind_cuda_testing(testing);
  nntap::bind_kernels(testing);
  nntap::bind_casts(testing);
  nntap::bind_simulator(testing);
  nntap::bind_driver_table(testing);
}
