// The table of contents of nntap._core.

#include <pybind11/pybind11.h>

#include "module/bind.hpp"
#include "python/python_error.hpp"

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

  nntap::bind_capture(m);
  nntap::bind_nnsight(m);
  nntap::bind_memory(m);
  nntap::bind_event_log(m);
  nntap::bind_build_info(m);
  nntap::bind_cuda(m);

  py::module_ testing = m.def_submodule("testing", "What tests drive the core with.");
  nntap::bind_cuda_testing(testing);
  nntap::bind_kernels(testing);
  nntap::bind_casts(testing);
  nntap::bind_simulator(testing);
  nntap::bind_driver_table(testing);
}
