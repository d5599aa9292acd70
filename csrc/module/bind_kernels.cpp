#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <vector>

#include "copy/dtype.hpp"
#include "device/cuda/kernels/cubins.hpp"
#include "device/cuda/kernels/gather_job.hpp"
#include "device/cuda/kernels/host_kernel.hpp"
#include "module/bind.hpp"
#include "support/error.hpp"

namespace py = pybind11;

namespace nntap {
namespace {

// Which bytes are elements of the sources of a launch, while it runs on this thread. Reading others is an error, also
// where they are in an allocation: they may be another tensor's, which is being written, or nobody's.
class Readable {
 public:
  explicit Readable(const cuda::GatherBatch& batch) {
    for (int j = 0; j < batch.jobs; ++j) add(batch.job[j]);
    current = this;
    cuda::on_load = check;
  }
  ~Readable() {
    cuda::on_load = nullptr;
    current = nullptr;
  }

 private:
  struct Range {
    std::uintptr_t start;
    std::vector<char> is_element;  // of each byte from `start` on
  };

  void add(const cuda::GatherJob& job) {
    Layout layout;  // without the dimensions that visit the same bytes again
    std::size_t reach = job.item;
    for (int d = 0; d < job.ndim; ++d) {
      if (job.shape[d] == 0) return;
      if (job.strides[d] == 0) continue;
      layout.shape[layout.ndim] = job.shape[d];
      layout.strides[layout.ndim++] = job.strides[d] * job.item;
      reach += static_cast<std::size_t>((job.shape[d] - 1) * job.strides[d]) * job.item;
    }
    Range range{reinterpret_cast<std::uintptr_t>(job.source), std::vector<char>(reach)};
    mark(range, layout, 0, 0, job.item);
    ranges_.push_back(std::move(range));
  }

  static void mark(Range& range, const Layout& layout, int dim, std::int64_t at, int item) {
    const bool row = dim == layout.ndim - 1 && layout.strides[dim] == item;
    if (dim == layout.ndim || row) {
      std::fill_n(range.is_element.begin() + at, row ? layout.shape[dim] * item : item, 1);
      return;
    }
    for (std::int64_t i = 0; i < layout.shape[dim]; ++i) {
      mark(range, layout, dim + 1, at + i * layout.strides[dim], item);
    }
  }

  static void check(const void* address, std::size_t bytes) {
    const auto start = reinterpret_cast<std::uintptr_t>(address);
    for (const Range& range : current->ranges_) {
      if (start < range.start || start + bytes > range.start + range.is_element.size()) continue;
      if (std::memchr(&range.is_element[start - range.start], 0, bytes) == nullptr) return;
    }
    throw std::logic_error("a kernel reads what is no element of its source");
  }

  static thread_local Readable* current;
  std::vector<Range> ranges_;
};

thread_local Readable* Readable::current = nullptr;

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

cuda::GatherBatch gather_batch(const std::vector<Job>& jobs, bool e4m3fn_saturates) {
  NNTAP_CHECK(jobs.size() <= cuda::kMaxJobs, InvalidArgument, jobs.size(), " jobs; a launch takes at most ",
              cuda::kMaxJobs);
  cuda::GatherBatch batch{};
  for (const Job& job : jobs) batch.job[batch.jobs++] = gather_job(job, e4m3fn_saturates);
  cuda::finish(batch);
  return batch;
}

int run_gather_cast(const std::vector<Job>& jobs, bool e4m3fn_saturates) {
  cuda::GatherBatch batch = gather_batch(jobs, e4m3fn_saturates);
  const Readable readable(batch);
  void* parameters[] = {&batch};
  cuda::run_gather_cast_on_host(parameters, static_cast<unsigned>(batch.blocks));
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
        "Runs one launch of the gather+cast kernel on the host. A job is (data_ptr, shape, strides, type, out_ptr,\n"
        "output type, first, count): elements [first, first + count) in row-major order. Returns the blocks. Reading\n"
        "anything but elements is a RuntimeError.");
  m.def(
      "gather_parameters",
      [](const std::vector<Job>& jobs, bool e4m3fn_saturates) {
        const cuda::GatherBatch batch = gather_batch(jobs, e4m3fn_saturates);
        return std::make_pair(py::bytes(reinterpret_cast<const char*>(&batch), sizeof(batch)), batch.blocks);
      },
      py::arg("jobs"), py::arg("e4m3fn_saturates"), "What that launch is given: its one parameter, and its blocks.");
  m.def("cubins", cubins, "The embedded machine code, by architecture.");
  m.def("ptx", cuda::ptx, "The embedded PTX, or None.");
  m.def("best_cubin", best_cubin, py::arg("major"), py::arg("minor"),
        "The architecture of the cubin for a GPU, or None: it needs the PTX.");
}

}  // namespace nntap
