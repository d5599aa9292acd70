#pragma once

#include <dlpack/dlpack.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

#include "copy/host_pool.hpp"

namespace nntap {

/// From (code, bits), as DLPack numbers them.
inline DLDataType dtype_of(std::pair<int, int> code_and_bits) {
  return {static_cast<std::uint8_t>(code_and_bits.first), static_cast<std::uint8_t>(code_and_bits.second), 1};
}

/// The bytes that a pool holds, by what they are: the part of its figures that every pool has.
pybind11::dict as_dict(const HostPoolStats& stats);

void bind_capture(pybind11::module_& m);
void bind_nnsight(pybind11::module_& m);
void bind_memory(pybind11::module_& m);
void bind_event_log(pybind11::module_& m);
void bind_build_info(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);

// What only tests use goes into nntap._core.testing.
void bind_cuda_testing(pybind11::module_& testing);
void bind_simulator(pybind11::module_& testing);
void bind_driver_table(pybind11::module_& testing);
void bind_kernels(pybind11::module_& testing);
void bind_casts(pybind11::module_& testing);

}  // namespace nntap
