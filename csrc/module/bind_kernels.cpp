#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "copy/dtype.hpp"
#include "device/cuda/kernels/cubins.hpp"
#include "device/cuda/kernels/gather_job.hpp"
#include "device/cuda/kernels/host_kernels.hpp"
#include "module/bind.hpp"
#include "support/error.hpp"

namespace py = pybind11;

namespace nntap {
namespace {

DLDataType dtype_of(std::pair<int, int> code_and_bits) {
  return {static_cast<std::uint8_t>(code_and_bits.first), static_cast<std::uint8_t>(code_and_bits.second), 1};
}

// data_ptr, shape, strides, (DLPack code, bits), out_ptr, (code, bits) of the output, first, count
using Job = std::tuple<std::uintptr_t, std::vector<std::int64_t>, std::vector<std::int64_t>, std::pair<int, int>,
                       std::uintptr_t, std::pair<int, int>, std::int64_t, std::int64_t>;

cuda::GatherJob gather_job(const Job& job, bool e4m3fn_saturates) {
  const auto& [data, shape, strides, from, out, to, first, count] = job;
  const int ndim = static_cast<int>(shape.size());
  NNTAP_CHECK(shape.size() == strides.size() && ndim <= kMaxDims, InvalidArgument, "a shape of ", ndim,
              " dimensions and ", strides.size(), " strides; they must be as many, and at most ", kMaxDims);
  NNTAP_CHECK(cuda::can_convert(dtype_of(from), dtype_of(to)), InvalidArgument, "no kernel turns ",
              name(dtype_of(from)), " into ", name(dtype_of(to)));
  TensorView view;
  view.data = reinterpret_cast<const void*>(data);
  view.dtype = dtype_of(from);
  view.layout.assign(ndim, shape.data(), strides.data());
  Layout row_major = view.layout;
  std::int64_t stride = 1;
  for (int d = ndim - 1; d >= 0; --d) {
    row_major.strides[d] = stride;
    stride *= shape[d];
  }
  return cuda::gather_job(view, plan_gather(view.layout, row_major), dtype_of(to), reinterpret_cast<void*>(out), first,
                          count, e4m3fn_saturates);
}

int run_gather_cast(const std::vector<Job>& jobs, bool e4m3fn_saturates) {
  NNTAP_CHECK(jobs.size() <= cuda::kMaxJobs, InvalidArgument, jobs.size(), " jobs; a launch takes at most ",
              cuda::kMaxJobs);
  cuda::GatherBatch batch{};
  for (const Job& job : jobs) batch.job[batch.jobs++] = gather_job(job, e4m3fn_saturates);
  cuda::finish(batch);
  void* parameters[] = {&batch};
  cuda::find_host_kernel(cuda::kGatherCastName)(parameters, static_cast<unsigned>(batch.blocks));
  return batch.blocks;
}

py::dict cubins() {
  py::dict out;
  for (const cuda::Cubin& cubin : cuda::cubins()) {
    out[py::int_(cubin.architecture)] = py::bytes(static_cast<const char*>(cubin.data), cubin.size);
  }
  return out;
}

std::optional<int> best_cubin(int major, int minor) {
  const cuda::Cubin* best = cuda::best_cubin(major, minor);
  return best == nullptr ? std::nullopt : std::optional<int>(best->architecture);
}

}  // namespace

void bind_kernels(py::module_& m) {
  m.def(
      "can_convert",
      [](std::pair<int, int> from, std::pair<int, int> to) { return cuda::can_convert(dtype_of(from), dtype_of(to)); },
      py::arg("source"), py::arg("to"), "Whether the kernel converts between two types, as (DLPack code, bits).");
  m.def("run_gather_cast", run_gather_cast, py::arg("jobs"), py::arg("e4m3fn_saturates"),
        "Runs one launch of the gather+cast kernel on the host. A job is (data_ptr, shape, strides, source type,\n"
        "out_ptr, output type, first, count): elements [first, first + count) in row-major order. Returns the blocks.");
  m.def("cubins", cubins, "The embedded machine code, by architecture.");
  m.def("ptx", cuda::ptx, "The embedded PTX, or None.");
  m.def("best_cubin", best_cubin, py::arg("major"), py::arg("minor"),
        "The architecture of the cubin for a GPU, or None: it needs the PTX.");
}

}  // namespace nntap
