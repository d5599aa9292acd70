#include "device/sim/simulator.hpp"

#include <algorithm>

namespace nntap::sim {

Simulator::Simulator(const Config& config)
    : config_(config),
      schedule_(config.seed, config.pace),
      contexts_(config.devices),
      heap_(std::make_shared<Heap>(config.devices)),
      copy_engines_(static_cast<std::size_t>(config.devices)) {
  for (int device = 0; device < config.devices; ++device) {
    default_streams_.push_back(add_queue(device, !config.lazy, true));
  }
}

std::optional<Result> Simulator::begin_call(Entry entry) {
  clock_.spend(config_.costs.call_ns);
  const auto failed = failures_.next(entry);
  if (failures_.lost()) {
    schedule_.abandon();
  } else {
    schedule_.breathe(clock_.now());
  }
  return failed;
}

void Simulator::note(const char* entry, const std::string& what) { violations_.push_back(text(entry, ": ", what)); }

void Simulator::excuse(Stream stream) {
  const auto at = streams_.alive().find(stream);
  if (at != streams_.alive().end()) at->second.excused = true;
}

void Simulator::excuse(Event event) {
  const auto at = events_.alive().find(event);
  if (at != events_.alive().end()) at->second.excused = true;
}

void Simulator::excuse(DeviceId device) {
  contexts_.excuse_release(device);
  for (auto& [handle, module] : modules_.alive()) module.excused = module.excused || module.device == device;
}

// ---- streams ----

Simulator::StreamState Simulator::add_queue(int device, bool eager, bool model) {
  return {device, schedule_.add_queue(), eager, model};
}

void Simulator::require_device(int device) const {
  require(device >= 0 && device < config_.devices, cuda::kInvalidValue, "there is no device ", device, " among the ",
          config_.devices);
}

Simulator::StreamState& Simulator::find_stream(Stream stream, int device) {
  if (stream != nullptr) return streams_.get(stream);
  require_device(device);
  return default_streams_[static_cast<std::size_t>(device)];
}

// The stream, for work that the driver's user puts into it.
Simulator::StreamState& Simulator::usable_stream(Stream stream) {
  const int current = contexts_.current();
  StreamState& found = find_stream(stream, current);
  require(found.device == current, kInvalidHandle, "stream ", stream, " is of device ", found.device,
          ", and the current context of device ", current);
  require(!found.capturing, kCaptureUnsupported, "stream ", stream, " is being captured into a graph");
  return found;
}

Span Simulator::reserve(const StreamState& stream, Time duration, BusyLine* engine) {
  const Time earliest = std::max(stream.end, clock_.now());
  return engine == nullptr ? Span{earliest, earliest + duration} : engine->reserve(earliest, duration);
}

void Simulator::enqueue(StreamState& stream, std::unique_ptr<Operation> operation, Time end) {
  operation->end = stream.end = end;
  schedule_.enqueue(stream.queue, std::move(operation));
  if (!stream.eager) return;
  require(schedule_.finish_alone(stream.queue), cuda::kUnknown,
          "deadlock: an eager stream needs a copy that is held; make the stream lazy");
}

// ---- what a model does ----

Stream Simulator::add_compute_stream(int device, bool lazy) {
  require_device(device);
  return streams_.add(add_queue(device, !lazy, true));
}

void Simulator::write(Stream stream, int device, void* out, const void* bytes, std::size_t count) {
  StreamState& on = find_stream(stream, device);
  const Span span = reserve(on, launch_time(config_.costs, count));
  enqueue(on, std::make_unique<Write>(out, bytes, count), span.end);
}

void Simulator::move(Stream stream, int device, void* out, const void* source, std::size_t bytes) {
  StreamState& on = find_stream(stream, device);
  const Span span = reserve(on, launch_time(config_.costs, 2 * bytes));
  enqueue(on, std::make_unique<Move>(out, source, bytes), span.end);
}

void Simulator::delay(Stream stream, int device, Time ns) {
  StreamState& on = find_stream(stream, device);
  enqueue(on, std::make_unique<Delay>(), reserve(on, ns).end);
}

// As an event that is recorded on the one and awaited on the other; no call of the driver's user.
void Simulator::wait(Stream stream, int device, Stream other, int other_device) {
  StreamState& on = find_stream(stream, device);
  StreamState& awaited = find_stream(other, other_device);
  const auto mark = std::make_shared<Mark>(Mark{false, awaited.queue, reserve(awaited, 0).end});
  enqueue(awaited, std::make_unique<Record>(mark), mark->end);
  enqueue(on, std::make_unique<Wait>(mark), std::max(reserve(on, 0).end, mark->end));
}

void Simulator::upload(Stream stream, int device, void* out, const void* source, std::size_t bytes) {
  if (!registrations_.cover(source, bytes)) return write(stream, device, out, source, bytes);
  StreamState& on = find_stream(stream, device);
  const Span span = reserve(on, copy_time(config_.costs, bytes));
  enqueue(on, std::make_unique<Move>(out, source, bytes), span.end);
}

DLManagedTensorVersioned* Simulator::allocate(Stream stream, int device, std::size_t bytes) {
  require_device(device);
  DLManagedTensorVersioned* made = heap_->allocate(device, stream, bytes);
  if (made != nullptr) place(made->dl_tensor.data, bytes, device);
  return made;
}

void Simulator::set_room(int device, std::size_t bytes) {
  require_device(device);
  heap_->set_room(device, bytes);
}

void Simulator::set_capturing(Stream stream, int device, bool capturing) {
  find_stream(stream, device).capturing = capturing;
}

void Simulator::place(const void* data, std::size_t bytes, int device) {
  require_device(device);
  places_[reinterpret_cast<std::uintptr_t>(data)] = {bytes, device};
}

int Simulator::device_of(const void* data) const {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  const auto after = places_.upper_bound(address);
  if (after == places_.begin()) return 0;
  const auto& [begin, range] = *std::prev(after);
  return address < begin + range.first ? range.second : 0;
}

// ---- what came of it ----

void Simulator::drop_modules(int device) {
  for (auto at = functions_.alive().begin(); at != functions_.alive().end();) {
    const auto here = at++;
    if (here->second.device == device) functions_.remove(here->first);
  }
  for (auto at = modules_.alive().begin(); at != modules_.alive().end();) {
    const auto here = at++;
    if (here->second.device == device) modules_.remove(here->first);
  }
}

std::vector<std::string> Simulator::leaks() const {
  std::vector<std::string> out;
  for (const auto& [handle, stream] : streams_.alive()) {
    if (!stream.model && !stream.excused) out.push_back(text("stream ", handle, " of device ", stream.device));
  }
  for (const auto& [handle, event] : events_.alive()) {
    if (!event.excused) out.push_back(text("event ", handle, " of device ", event.device));
  }
  for (const auto& [handle, module] : modules_.alive()) {
    if (!module.excused) out.push_back(text("module ", handle, " of device ", module.device));
  }
  for (const auto& [thread, mode] : capture_modes_) {
    if (mode != cuda::kCaptureModeGlobal) out.push_back(text("a thread's capture mode is left at ", mode));
  }
  registrations_.list_leaks(out);
  contexts_.list_leaks(out);
  return out;
}

Report Simulator::report() const {
  Report out = report_;
  out.host_ns = clock_.first_now();
  out.host_blocked_ns = clock_.first_blocked();
  out.all_blocked_ns = clock_.all_blocked();
  for (const StreamState& stream : default_streams_) out.stream_ends.push_back({stream.device, nullptr, stream.end});
  for (const auto& [handle, stream] : streams_.alive()) {
    out.stream_ends.push_back({stream.device, handle, stream.end});
  }
  for (int device = 0; device < config_.devices; ++device) {
    out.memory.push_back({heap_->used(device), heap_->peak(device), heap_->refused(device)});
  }
  out.events = events_.alive().size();
  out.registered_bytes = registrations_.registered_bytes();
  return out;
}

}  // namespace nntap::sim
