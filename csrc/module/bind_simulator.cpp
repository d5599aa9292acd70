#include <dlpack/dlpack.h>
#include <pybind11/stl.h>

#include <memory>

#include "capture/torch_seam.hpp"
#include "device/cuda/platform.hpp"
#include "device/sim/active.hpp"
#include "module/bind.hpp"

namespace py = pybind11;

namespace nntap {
namespace sim {
namespace {

using Address = std::uintptr_t;

template <typename T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

Stream stream_at(Address address) { return reinterpret_cast<Stream>(address); }

// What a model does. A rule that it breaks is written down like the engine's, and raised here.
template <typename Work>
void model_work(const char* name, Work work) {
  const Active active;
  try {
    work(*active);
  } catch (const Violation& broken) {
    active->note(name, broken.text);
    throw InvalidArgument(text(name, ": ", broken.text));
  }
  active->end_call();
}

Entry entry_named(const std::string& name) {
  for (std::size_t i = 0; i < kEntries; ++i) {
    if (name == kEntryNames[i]) return static_cast<Entry>(i);
  }
  throw InvalidArgument(text("the driver table has no entry '", name, "'"));
}

Pace pace_named(const std::string& name) {
  if (name == "any") return Pace::kAny;
  if (name == "never") return Pace::kNever;
  if (name == "always") return Pace::kAlways;
  if (name == "trickle") return Pace::kTrickle;
  if (name == "fits") return Pace::kFits;
  if (name == "timed") return Pace::kTimed;
  throw InvalidArgument(text("pace='", name, "' is not allowed: give any, never, always, trickle, fits or timed"));
}

std::size_t step(std::size_t most) {
  const Active active;
  std::size_t done = 0;
  while (done < most && active->step()) ++done;
  return done;
}

py::dict report() {
  Report seen;
  py::dict calls;
  py::dict out;
  {
    const Active active;
    seen = active->report();
    out["pending"] = active->pending();
    for (std::size_t i = 0; i < kEntries; ++i) calls[kEntryNames[i]] = active->calls(static_cast<Entry>(i));
  }
  py::dict ends;
  for (const auto& [device, stream, end] : seen.stream_ends) {
    ends[py::make_tuple(device, reinterpret_cast<Address>(stream))] = end;
  }
  py::list copies;
  for (const auto& copy : seen.copies) copies.append(py::make_tuple(copy.bytes, copy.device, copy.begin, copy.end));
  py::list memory;
  for (const auto& [used, peak, refused] : seen.memory) memory.append(py::make_tuple(used, peak, refused));
  out["memory"] = memory;
  out["host_ns"] = seen.host_ns;
  out["host_blocked_ns"] = seen.host_blocked_ns;
  out["all_blocked_ns"] = seen.all_blocked_ns;
  out["stream_ends"] = ends;
  out["copies"] = copies;
  out["launches"] = seen.launches;
  out["calls"] = calls;
  out["events"] = seen.events;
  out["events_peak"] = seen.events_peak;
  out["registered_bytes"] = seen.registered_bytes;
  out["registered_peak_bytes"] = seen.registered_peak_bytes;
  return out;
}

py::object allocate(Address stream, int device, std::size_t bytes) {
  const auto release = [](DLManagedTensorVersioned* memory) { memory->deleter(memory); };
  std::unique_ptr<DLManagedTensorVersioned, decltype(release)> made(nullptr, release);
  model_work("allocate", [&](Simulator& sim) { made.reset(sim.allocate(stream_at(stream), device, bytes)); });
  if (!made) return py::none();
  Ref tensor = torch_seam::to_tensor(made.get());
  (void)made.release();
  return py::reinterpret_steal<py::object>(tensor.release());
}

void use(bool simulated) { cuda::use_platform(simulated ? &platform() : nullptr); }

void bind_run(py::module_& m) {
  m.def(
      "start",
      [](std::uint64_t seed, const std::string& pace, int devices, bool lazy, std::pair<int, int> capability,
         int driver_version, std::size_t free_bytes, double link_rate, double memory_rate, Time copy_ns, Time launch_ns,
         Time call_ns) {
        const Costs costs{link_rate, memory_rate, copy_ns, launch_ns, call_ns};
        start({seed, pace_named(pace), devices, lazy, capability.first, capability.second, driver_version, free_bytes,
               costs});
      },
      py::kw_only(), py::arg("seed"), py::arg("pace"), py::arg("devices"), py::arg("lazy"), py::arg("capability"),
      py::arg("driver_version"), py::arg("free_bytes"), py::arg("link_bytes_per_second"),
      py::arg("memory_bytes_per_second"), py::arg("copy_ns"), py::arg("launch_ns"), py::arg("call_ns"),
      "Starts the one simulator.");
  m.def("stop", stop, "Ends it; what is under way is dropped.");
  m.def("use", use, py::arg("simulated"), py::call_guard<py::gil_scoped_release>(),
        "Puts the simulator in the place of the machine's driver, or takes it back.");
  m.def("step", step, py::arg("most"), "Runs up to that many steps of what is ready; says how many.");
  m.def("hold_copies", [](bool held) { Active()->hold_copies(held); }, py::arg("held"), "While held, no copy lands.");
  m.def(
      "fail",
      [](const std::string& entry, std::uint64_t nth, int result, bool for_good) {
        NNTAP_CHECK(nth > 0, InvalidArgument, "nth=0 is not allowed: the next call is 1");
        Active()->fail(entry_named(entry), nth, result, for_good);
      },
      py::arg("entry"), py::arg("nth"), py::arg("result"), py::arg("for_good"), "Makes a call fail.");
  m.def("report", report, "What has happened so far.");
  m.def("violations", [] { return Active()->violations(); }, "The broken rules.");
  m.def("leaks", [] { return Active()->leaks(); }, "What lives that somebody should have given back.");
}

void bind_model(py::module_& m) {
  m.def(
      "add_stream",
      [](int device, bool lazy) {
        Stream stream = nullptr;
        model_work("stream", [&](Simulator& sim) { stream = sim.add_compute_stream(device, lazy); });
        return reinterpret_cast<Address>(stream);
      },
      py::arg("device"), py::arg("lazy"), "A new stream of the model.");
  m.def(
      "push_stream", [](int device, Address stream) { push_current_stream(device, stream_at(stream)); },
      py::arg("device"), py::arg("stream"), "Makes it the stream of this thread's operations.");
  m.def("pop_stream", pop_current_stream, "Takes back what push_stream() did.");
  m.def(
      "current_stream",
      [](int device) {
        Stream stream = nullptr;
        platform().current_stream(device, &stream);
        return reinterpret_cast<Address>(stream);
      },
      py::arg("device"), "The stream of this thread's operations.");
  m.def(
      "write",
      [](Address stream, int device, Address out, Address source, std::size_t count) {
        model_work("write", [&](Simulator& sim) {
          sim.write(stream_at(stream), device, pointer<void>(out), pointer<const void>(source), count);
        });
      },
      py::arg("stream"), py::arg("device"), py::arg("out"), py::arg("source"), py::arg("count"),
      "Enqueues a write of bytes that are copied now.");
  m.def(
      "move",
      [](Address stream, int device, Address out, Address source, std::size_t count) {
        model_work("copy", [&](Simulator& sim) {
          sim.move(stream_at(stream), device, pointer<void>(out), pointer<const void>(source), count);
        });
      },
      py::arg("stream"), py::arg("device"), py::arg("out"), py::arg("source"), py::arg("count"),
      "Enqueues a copy within device memory.");
  m.def(
      "delay",
      [](Address stream, int device, Time ns) {
        model_work("delay", [&](Simulator& sim) { sim.delay(stream_at(stream), device, ns); });
      },
      py::arg("stream"), py::arg("device"), py::arg("ns"), "Enqueues virtual time.");
  m.def(
      "wait",
      [](Address stream, int device, Address other, int other_device) {
        model_work("wait",
                   [&](Simulator& sim) { sim.wait(stream_at(stream), device, stream_at(other), other_device); });
      },
      py::arg("stream"), py::arg("device"), py::arg("other"), py::arg("other_device"),
      "Lets a stream wait for what another holds now.");
  m.def(
      "upload",
      [](Address stream, int device, Address out, Address source, std::size_t count) {
        model_work("upload", [&](Simulator& sim) {
          sim.upload(stream_at(stream), device, pointer<void>(out), pointer<const void>(source), count);
        });
      },
      py::arg("stream"), py::arg("device"), py::arg("out"), py::arg("source"), py::arg("count"),
      "Enqueues a copy from host memory.");
  m.def("allocate", allocate, py::arg("stream"), py::arg("device"), py::arg("size"),
        "Device memory for a stream, as a tensor of bytes; None: the device has no room.");
  m.def(
      "set_room", [](int device, std::size_t bytes) { Active()->set_room(device, bytes); }, py::arg("device"),
      py::arg("size"), "The most memory of a device that may be allocated at a time.");
  m.def("spend", [](Time ns) { Active()->spend(ns); }, py::arg("ns"), "Virtual time of the calling thread.");
  m.def(
      "set_capturing",
      [](Address stream, int device, bool capturing) {
        model_work("set_capturing", [&](Simulator& sim) { sim.set_capturing(stream_at(stream), device, capturing); });
      },
      py::arg("stream"), py::arg("device"), py::arg("capturing"), "Whether a graph is being captured from it.");
  m.def(
      "place",
      [](Address data, std::size_t bytes, int device) {
        model_work("place", [&](Simulator& sim) { sim.place(pointer<const void>(data), bytes, device); });
      },
      py::arg("data"), py::arg("size"), py::arg("device"), "Says which device memory belongs to.");
  m.def(
      "device_of", [](Address data) { return platform().device_of(1, 0, pointer<const void>(data)); }, py::arg("data"),
      "The device that memory belongs to; -1: no simulation runs.");
}

}  // namespace
}  // namespace sim

void bind_simulator(py::module_& testing) {
  sim::bind_run(testing);
  sim::bind_model(testing);
  py::list names;
  for (const char* name : sim::kEntryNames) names.append(name);
  testing.attr("ENTRIES") = py::tuple(names);
}

}  // namespace nntap
