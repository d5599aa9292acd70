#include "capture/stall.hpp"
#include "copy/host_pool.hpp"
#include "copy/system_memory.hpp"
#include "device/cpu/torch_threads.hpp"
#include "module/bind.hpp"

namespace py = pybind11;

namespace nntap {
namespace {

py::dict pool_stats() {
  const HostPoolStats stats = HostPool::instance().stats();
  py::dict out = as_dict(stats);
  out["slabs"] = stats.slabs;
  out["slab_bytes"] = stats.slab_bytes;
  out["touched_bytes"] = stats.touched_bytes;
  out["wait_seconds"] = stall_patience();
  return out;
}

}  // namespace

py::dict as_dict(const HostPoolStats& stats) {
  py::dict out;
  out["reserved_bytes"] = stats.reserved_bytes;
  out["used_bytes"] = stats.used_bytes;
  out["peak_bytes"] = stats.peak_bytes;
  out["limit_bytes"] = stats.limit_bytes;
  return out;
}

void bind_memory(py::module_& m) {
  m.def("pool_stats", pool_stats, "What the host pool holds, in bytes; limit_bytes 0 means none.");
  m.def(
      "set_host_limit", [](std::size_t bytes) { HostPool::instance().set_limit(bytes); }, py::arg("host_bytes"),
      "The most the host pool may reserve, in bytes; 0 means no limit.");
  m.def(
      "memory_of_this_system",
      [](const std::string& proc, const std::string& cgroups) { return memory_of_this_system({proc, cgroups}); },
      py::arg("proc") = "/proc", py::arg("cgroups") = "/sys/fs/cgroup",
      "What this process may use of the machine's memory, in bytes.");
  m.def(
      "memory_to_be_had",
      [](const std::string& proc, const std::string& cgroups) { return memory_to_be_had({proc, cgroups}); },
      py::arg("proc") = "/proc", py::arg("cgroups") = "/sys/fs/cgroup",
      "What of that is free, or can be made so without swapping, in bytes.");
  m.def("set_wait_seconds", set_stall_patience, py::arg("seconds"), "The longest a hook waits for host memory.");
  m.def("lose_torch_threads", lose_torch_threads, "This process was forked before the core was loaded.");
  m.def(
      "reserve_host", [](std::size_t size) { return HostPool::instance().reserve(size); }, py::arg("size"),
      py::call_guard<py::gil_scoped_release>(), "Host memory for that many bytes of records; False: not to be had.");
  m.def(
      "trim", [] { return HostPool::instance().trim(); }, py::call_guard<py::gil_scoped_release>(),
      "Gives slabs without records back to the system; returns their bytes.");
}

}  // namespace nntap
