#pragma once

#include <pybind11/pybind11.h>

namespace nntap {

void bind_memory(pybind11::module_& m);
void bind_build_info(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_cuda_testing(pybind11::module_& testing);
void bind_simulator(pybind11::module_& testing);
void bind_driver_table(pybind11::module_& testing);

// What only tests use goes into nntap._core.testing.
void bind_kernels(pybind11::module_& testing);

}  // namespace nntap
