#include <pybind11/stl.h>

#include <string>

#include "device/cuda/edges.hpp"
#include "device/cuda/kernels/cubins.hpp"
#include "device/cuda/lanes.hpp"
#include "device/cuda/libcuda.hpp"
#include "device/cuda/pinned_pool.hpp"
#include "device/cuda/platform.hpp"
#include "device/cuda/settings.hpp"
#include "device/cuda/staging.hpp"
#include "device/torch_services.hpp"
#include "module/bind.hpp"
#include "support/error.hpp"

namespace py = pybind11;

namespace nntap {
namespace cuda {
namespace {

py::dict stats_of(const Lane& lane) {
  const LaneStats stats = lane.stats();
  py::dict out;
  out["device"] = lane.device();
  out["chunk_bytes"] = stats.chunk_bytes;
  out["device_bytes"] = stats.device_bytes;
  out["peak_device_bytes"] = stats.peak_device_bytes;
  out["copies"] = stats.copies;
  out["bytes_copied"] = stats.bytes_copied;
  out["gpu_waits"] = stats.gpu_waits;
  return out;
}

py::dict cuda_stats() {
  py::list devices;
  for (const auto& lane : open_lanes()) devices.append(stats_of(*lane));
  py::dict out;
  out["pinned"] = as_dict(PinnedPool::instance().stats());
  out["devices"] = devices;
  return out;
}

std::string kernel_for(int major, int minor) {
  if (const Cubin* cubin = best_cubin(major, minor)) return text("sm_", cubin->architecture);
  return ptx_for(major, minor) != nullptr ? "ptx" : "none";
}

py::dict device_info(const Driver& driver, int ordinal) {
  DeviceId device = 0;
  char name[256] = "";
  int major = 0, minor = 0;
  driver.device_get(&device, ordinal);
  driver.device_name(name, sizeof name, device);
  driver.device_attribute(&major, kAttributeMajor, device);
  driver.device_attribute(&minor, kAttributeMinor, device);
  py::dict out;
  out["name"] = std::string(name);
  out["capability"] = py::make_tuple(major, minor);
  out["kernel"] = kernel_for(major, minor);
  return out;
}

py::dict cuda_info() {
  py::dict out;
  const Platform* found = platform();
  out["installed"] = found != nullptr || has_libcuda();
  out["problem"] = found == nullptr ? py::object(py::str(why_not())) : py::object(py::none());
  if (found == nullptr) return out;
  int version = 0, count = 0;
  found->driver->driver_version(&version);
  found->driver->device_count(&count);
  py::list devices;
  for (int ordinal = 0; ordinal < count; ++ordinal) devices.append(device_info(*found->driver, ordinal));
  out["simulated"] = found == simulated_platform();
  out["driver"] = text(version / 1000, ".", version % 1000 / 10);
  out["devices"] = devices;
  return out;
}

bool open_device(int device) {
  const Platform* found = platform();
  if (found == nullptr || forked()) return false;
  Stream stream = nullptr;
  NNTAP_CHECK(found->current_stream(device, &stream) == 0, CudaError, "torch has no current stream for device ",
              device);
  return lane_of(*found, device, stream).lane != nullptr;
}

// In a forked process the engine's threads and its hold on the devices are missing: there is nothing to give back, and
// nobody to wait for.
std::size_t trim() {
  if (forked()) return 0;
  std::size_t freed = PinnedPool::instance().trim();
  for (const auto& lane : open_lanes()) freed += lane->trim();
  return freed;
}

void stop() {
  if (forked()) return;
  Staging::instance().stop();
  PinnedPool::instance().stop();
}

void remove_edge(const std::string& name) {
  Edge found = Edge::kNone;
#define NNTAP_EDGE(edge, text) \
  if (name == #edge) found = Edge::edge;
  NNTAP_EDGES(NNTAP_EDGE)
#undef NNTAP_EDGE
  NNTAP_CHECK(found != Edge::kNone || name.empty(), InvalidArgument, "the engine has no ordering edge '", name, "'");
  removed_edge = found;
}

py::dict edges() {
  py::dict all;
#define NNTAP_EDGE(edge, text) all[#edge] = text;
  NNTAP_EDGES(NNTAP_EDGE)
#undef NNTAP_EDGE
  return all;
}

}  // namespace
}  // namespace cuda

void bind_cuda(py::module_& m) {
  using namespace cuda;
  m.def("open_cuda", open_device, py::arg("device"),
        "Readies a device for recording, as the first record on it does; False: torch has to record on it.");
  m.def("cuda_stats", cuda_stats, "What the CUDA devices that were recorded on, and pinned memory, hold.");
  m.def("cuda_info", cuda_info, "The driver and its GPUs; `problem` says why there are none.");
  m.def(
      "reserve_pinned", [](std::size_t size) { return PinnedPool::instance().reserve(size); }, py::arg("size"),
      py::call_guard<py::gil_scoped_release>(), "Pinned memory for that many bytes of records; False: not to be had.");
  m.def(
      "set_pinned_limit", [](std::size_t bytes) { PinnedPool::instance().set_limit(bytes); }, py::arg("pinned_bytes"),
      "The most pinned memory that records may take, in bytes; 0 means no limit.");
  m.def(
      "set_device_limit", [](std::size_t bytes) { settings.device_bytes = bytes; }, py::arg("device_bytes"),
      "The most memory of each device that chunks may take, in bytes.");
  m.def("device_limit", [] { return settings.device_bytes.load(); }, "What set_device_limit() said.");
  m.def("trim_cuda", trim, py::call_guard<py::gil_scoped_release>(),
        "Gives pinned memory and chunks that are not in use back; returns their bytes.");
  m.def("stop_cuda", stop, py::call_guard<py::gil_scoped_release>(), "Ends the threads of the engine.");
  m.def(
      "set_e4m3fn_overflows_from",
      [](const std::vector<std::pair<int, int>>& dtypes) {
        std::vector<DLDataType> found;
        for (const auto& dtype : dtypes) found.push_back(dtype_of(dtype));
        torch_services.e4m3fn_overflows_from = std::move(found);
      },
      py::arg("dtypes"),
      "The types, as (DLPack code, bits), of which this torch makes nan where float8_e4m3fn is full.");
}

void bind_cuda_testing(py::module_& testing) {
  using namespace cuda;
  testing.def(
      "set_cuda_settings",
      [](std::size_t chunk_bytes, std::size_t device_bytes, bool pinned, unsigned copy_threads, bool grow_ahead) {
        settings.chunk_bytes = chunk_bytes;
        settings.device_bytes = device_bytes;
        settings.pinned = pinned;
        settings.copy_threads = copy_threads;
        settings.grow_ahead = grow_ahead;
      },
      py::kw_only(), py::arg("chunk_bytes"), py::arg("device_bytes"), py::arg("pinned"), py::arg("copy_threads"),
      py::arg("grow_ahead"), "Sizes the CUDA engine.");
  testing.def(
      "cuda_settings",
      [] {
        py::dict out;
        out["chunk_bytes"] = settings.chunk_bytes.load();
        out["device_bytes"] = settings.device_bytes.load();
        out["pinned"] = settings.pinned.load();
        out["copy_threads"] = settings.copy_threads.load();
        out["grow_ahead"] = settings.grow_ahead.load();
        return out;
      },
      "What set_cuda_settings() said.");
  testing.def("remove_edge", remove_edge, py::arg("name"), "Takes an ordering edge away; '' puts all back.");
  testing.def("edges", edges, "The ordering edges: what each is, by name.");
}

}  // namespace nntap
