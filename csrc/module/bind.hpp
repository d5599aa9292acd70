#pragma once

#include <pybind11/pybind11.h>

namespace nntap {

void bind_memory(pybind11::module_& m);
void bind_build_info(pybind11::module_& m);

}  // namespace nntap
