// The entries of the driver table, in its order.

#include <algorithm>
#include <cstring>

#include "device/sim/simulator.hpp"

namespace nntap::sim {
namespace {

constexpr Result kNotInitialized = cuda::kNotInitialized;

void require_out(const void* out) { require(out != nullptr, cuda::kInvalidValue, "the result goes to null"); }

const char* name_of(Result error) {
  switch (error) {
    case cuda::kSuccess:
      return "CUDA_SUCCESS";
    case cuda::kInvalidValue:
      return "CUDA_ERROR_INVALID_VALUE";
    case cuda::kOutOfMemory:
      return "CUDA_ERROR_OUT_OF_MEMORY";
    case cuda::kNotInitialized:
      return "CUDA_ERROR_NOT_INITIALIZED";
    case cuda::kDeinitialized:
      return "CUDA_ERROR_DEINITIALIZED";
    case cuda::kNoDevice:
      return "CUDA_ERROR_NO_DEVICE";
    case cuda::kInvalidContext:
      return "CUDA_ERROR_INVALID_CONTEXT";
    case cuda::kNoBinaryForGpu:
      return "CUDA_ERROR_NO_BINARY_FOR_GPU";
    case cuda::kInvalidPtx:
      return "CUDA_ERROR_INVALID_PTX";
    case cuda::kJitCompilerNotFound:
      return "CUDA_ERROR_JIT_COMPILER_NOT_FOUND";
    case cuda::kUnsupportedPtxVersion:
      return "CUDA_ERROR_UNSUPPORTED_PTX_VERSION";
    case cuda::kJitCompilationDisabled:
      return "CUDA_ERROR_JIT_COMPILATION_DISABLED";
    case kInvalidHandle:
      return "CUDA_ERROR_INVALID_HANDLE";
    case cuda::kNotFound:
      return "CUDA_ERROR_NOT_FOUND";
    case cuda::kNotReady:
      return "CUDA_ERROR_NOT_READY";
    case cuda::kIllegalAddress:
      return "CUDA_ERROR_ILLEGAL_ADDRESS";
    case cuda::kHostMemoryAlreadyRegistered:
      return "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED";
    case kHostMemoryNotRegistered:
      return "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED";
    case cuda::kLaunchFailed:
      return "CUDA_ERROR_LAUNCH_FAILED";
    case cuda::kNotSupported:
      return "CUDA_ERROR_NOT_SUPPORTED";
    case kCaptureUnsupported:
      return "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
    case cuda::kUnknown:
      return "CUDA_ERROR_UNKNOWN";
    default:
      return nullptr;
  }
}

// Bytes that are no value a model gives, and not those of the copy before.
void poison(void* out, std::size_t bytes, std::uint64_t copy) {
  std::memset(out, static_cast<int>(0xA1 + copy % 15), bytes);
}

}  // namespace

// ---- driver and devices ----

Result Simulator::init(unsigned flags) {
  require(flags == 0, cuda::kInvalidValue, "flags ", flags, ", and only 0 is allowed");
  if (config_.devices == 0) return cuda::kNoDevice;
  initialised_ = true;
  return cuda::kSuccess;
}

Result Simulator::driver_version(int* version) {
  require_out(version);
  *version = config_.driver_version;
  return cuda::kSuccess;
}

Result Simulator::error_name(Result error, const char** name) {
  require_out(name);
  *name = name_of(error);
  return *name == nullptr ? cuda::kInvalidValue : cuda::kSuccess;
}

Result Simulator::device_count(int* count) {
  require_out(count);
  require(initialised_, kNotInitialized, "init was not called");
  *count = config_.devices;
  return cuda::kSuccess;
}

Result Simulator::device_get(DeviceId* device, int ordinal) {
  require_out(device);
  require(initialised_, kNotInitialized, "init was not called");
  require_device(ordinal);
  *device = ordinal;
  return cuda::kSuccess;
}

Result Simulator::device_name(char* name, int length, DeviceId device) {
  require_device(device);
  require(name != nullptr && length > 0, cuda::kInvalidValue, "no room for the name: ", length, " bytes");
  const std::string full = text("simulated device ", device);
  const std::size_t fits = std::min(full.size(), static_cast<std::size_t>(length) - 1);
  std::memcpy(name, full.data(), fits);
  name[fits] = '\0';
  return cuda::kSuccess;
}

Result Simulator::device_attribute(int* value, int attribute, DeviceId device) {
  require_out(value);
  require_device(device);
  switch (attribute) {
    case cuda::kAttributeMajor:
      *value = config_.major;
      return cuda::kSuccess;
    case cuda::kAttributeMinor:
      *value = config_.minor;
      return cuda::kSuccess;
    default:
      throw Violation{cuda::kInvalidValue, text("attribute ", attribute, " is not simulated")};
  }
}

// ---- contexts ----

Result Simulator::primary_context_retain(Context* context, DeviceId device) {
  require_out(context);
  require(initialised_, kNotInitialized, "init was not called");
  require_device(device);
  *context = contexts_.retain(device);
  return cuda::kSuccess;
}

Result Simulator::primary_context_release(DeviceId device) {
  require_device(device);
  if (contexts_.release(device)) drop_modules(device);
  return cuda::kSuccess;
}

Result Simulator::context_push(Context context) {
  contexts_.push(context);
  return cuda::kSuccess;
}

Result Simulator::context_pop(Context* context) {
  const Context popped = contexts_.pop();
  if (context != nullptr) *context = popped;
  return cuda::kSuccess;
}

// ---- streams ----

Result Simulator::stream_create(Stream* stream, unsigned flags) {
  require_out(stream);
  const int device = contexts_.current();
  require(flags == cuda::kStreamNonBlocking, cuda::kInvalidValue, "flags ", flags,
          ": a stream that is not non-blocking waits for the default stream, which is not simulated");
  *stream = streams_.add(add_queue(device, false, false));
  return cuda::kSuccess;
}

Result Simulator::stream_destroy(Stream stream) {
  require(stream != nullptr, kInvalidHandle, "the default stream cannot be destroyed");
  const StreamState& state = usable_stream(stream);
  require(!state.model, kInvalidHandle, "stream ", stream, " is the model's");
  schedule_.retire(state.queue);
  streams_.remove(stream);
  return cuda::kSuccess;
}

Result Simulator::stream_wait_event(Stream stream, Event event, unsigned flags) {
  require(flags == 0, cuda::kInvalidValue, "flags ", flags, ", and only 0 is allowed");
  StreamState& on = usable_stream(stream);
  const auto mark = events_.get(event).latest;
  if (mark == nullptr) return cuda::kSuccess;
  const Time end = std::max(reserve(on, 0).end, mark->end);
  enqueue(on, std::make_unique<Wait>(mark), end);
  return cuda::kSuccess;
}

Result Simulator::stream_is_capturing(Stream stream, int* status) {
  require_out(status);
  const StreamState& state = find_stream(stream, contexts_.current());
  *status = state.capturing ? 1 : cuda::kStreamNotCapturing;
  return cuda::kSuccess;
}

Result Simulator::exchange_capture_mode(int* mode) {
  require_out(mode);
  require(*mode >= cuda::kCaptureModeGlobal && *mode <= cuda::kCaptureModeRelaxed, cuda::kInvalidValue, "mode ", *mode,
          " is none of the three");
  std::swap(*mode, capture_modes_[std::this_thread::get_id()]);
  return cuda::kSuccess;
}

Result Simulator::stream_synchronize(Stream stream) {
  const StreamState& state = usable_stream(stream);
  require(schedule_.finish(state.queue), cuda::kUnknown, "deadlock: stream ", stream, " can never be done");
  clock_.wait_until(state.end);
  return cuda::kSuccess;
}

// ---- events ----

// In its usual mode a capture forbids a thread what might depend on it, unless the thread says that it does not: doing
// so ends the capture.
void Simulator::require_no_capture() {
  if (capture_modes_[std::this_thread::get_id()] == cuda::kCaptureModeRelaxed) return;
  const auto capturing = [](const StreamState& stream) { return stream.capturing; };
  const bool any = std::any_of(default_streams_.begin(), default_streams_.end(), capturing) ||
                   std::any_of(streams_.alive().begin(), streams_.alive().end(),
                               [&](const auto& entry) { return capturing(entry.second); });
  require(!any, kCaptureUnsupported, "such a call while a stream is captured ends the capture");
}

Result Simulator::event_create(Event* event, unsigned flags) {
  require_out(event);
  require((flags | cuda::kEventBlockingSync) == (cuda::kEventDisableTiming | cuda::kEventBlockingSync),
          cuda::kInvalidValue, "flags ", flags, ": an event with timing costs ten times as much");
  *event = events_.add({contexts_.current()});
  report_.events_peak = std::max(report_.events_peak, events_.alive().size());
  return cuda::kSuccess;
}

Result Simulator::event_destroy(Event event) {
  contexts_.current();
  events_.get(event);
  events_.remove(event);
  return cuda::kSuccess;
}

Result Simulator::event_record(Event event, Stream stream) {
  StreamState& on = usable_stream(stream);
  EventState& state = events_.get(event);
  require(state.device == on.device, kInvalidHandle, "event ", event, " is of device ", state.device, ", and stream ",
          stream, " of device ", on.device);
  const Time end = reserve(on, 0).end;
  state.latest = std::make_shared<Mark>(Mark{false, on.queue, end});
  enqueue(on, std::make_unique<Record>(state.latest), end);
  return cuda::kSuccess;
}

Result Simulator::event_query(Event event) {
  contexts_.current();
  require_no_capture();
  const auto mark = events_.get(event).latest;
  if (mark == nullptr) return cuda::kSuccess;
  const bool over = schedule_.pace() != Pace::kTimed || mark->end <= clock_.now();
  return mark->done && over ? cuda::kSuccess : cuda::kNotReady;
}

Result Simulator::event_synchronize(Event event) {
  contexts_.current();
  require_no_capture();
  const auto mark = events_.get(event).latest;
  if (mark == nullptr) return cuda::kSuccess;
  require(schedule_.finish(*mark), cuda::kUnknown, "deadlock: event ", event, " can never be done");
  clock_.wait_until(mark->end);
  return cuda::kSuccess;
}

// ---- memory ----

Result Simulator::memory_info(std::size_t* free, std::size_t* total) {
  require_out(free);
  require_out(total);
  contexts_.current();
  *free = config_.free_bytes;
  *total = config_.free_bytes;
  return cuda::kSuccess;
}

Result Simulator::copy_to_host(void* out, DevicePtr source, std::size_t bytes, Stream stream) {
  StreamState& on = usable_stream(stream);
  if (bytes == 0) return cuda::kSuccess;
  const void* from = reinterpret_cast<const void*>(source);
  require(out != nullptr && from != nullptr, cuda::kInvalidValue, "a copy from ", from, " to ", out);
  const int device = device_of(from);
  require(device == on.device, cuda::kInvalidValue, from, " is memory of device ", device, ", and stream ", stream,
          " of device ", on.device);
  registrations_.require_covered(out, bytes, on.device);
  poison(out, bytes, copies_++);
  const Span span = reserve(on, copy_time(config_.costs, bytes), &copy_engines_[static_cast<std::size_t>(on.device)]);
  report_.copies.push_back({bytes, on.device, span.begin, span.end});
  enqueue(on, std::make_unique<Copy>(from, out, bytes, schedule_.random()), span.end);
  return cuda::kSuccess;
}

Result Simulator::host_register(void* data, std::size_t bytes, unsigned flags) {
  require_no_capture();
  require((flags & ~cuda::kHostRegisterPortable) == 0, cuda::kInvalidValue, "flags ", flags, " are not simulated");
  registrations_.add(data, bytes, contexts_.current(), (flags & cuda::kHostRegisterPortable) != 0);
  report_.registered_peak_bytes = std::max(report_.registered_peak_bytes, registrations_.registered_bytes());
  return cuda::kSuccess;
}

Result Simulator::host_unregister(void* data) {
  contexts_.current();
  require_no_capture();
  const std::size_t bytes = registrations_.bytes_at(data);
  require(!schedule_.will_write(data, bytes), cuda::kInvalidValue, "a copy into ", data, " has not landed yet");
  registrations_.remove(data);
  return cuda::kSuccess;
}

// ---- kernels ----

Result Simulator::module_load(Module* module, const void* image) {
  require_out(module);
  require(image != nullptr, cuda::kInvalidValue, "the image is null");
  require_no_capture();
  *module = modules_.add({contexts_.current()});
  return cuda::kSuccess;
}

Result Simulator::module_function(Function* function, Module module, const char* name) {
  require_out(function);
  require(name != nullptr, cuda::kInvalidValue, "the name is null");
  contexts_.current();
  const ModuleState& state = modules_.get(module);
  const Kernel* kernel = find_kernel(name);
  if (kernel == nullptr) return cuda::kNotFound;
  *function = functions_.add({state.device, kernel});
  return cuda::kSuccess;
}

Result Simulator::launch(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                         unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream stream, void** parameters,
                         void** extra) {
  StreamState& on = usable_stream(stream);
  const FunctionState& state = functions_.get(function);
  require(state.device == on.device, kInvalidHandle, "function ", function, " is of device ", state.device,
          ", and stream ", stream, " of device ", on.device);
  const std::uint64_t threads = std::uint64_t{block_x} * block_y * block_z;
  require(grid_x > 0 && grid_y > 0 && grid_z > 0 && threads > 0, cuda::kInvalidValue, "an empty grid or block");
  require(threads <= 1024 && grid_y <= 65535 && grid_z <= 65535 && grid_x <= 0x7FFFFFFF && shared_bytes <= 49152,
          cuda::kInvalidValue, "a grid, block or shared memory larger than any device's");
  require(parameters != nullptr && extra == nullptr, cuda::kInvalidValue, "parameters go into `parameters` alone");
  ++report_.launches;
  const Span span = reserve(on, state.kernel->time(config_.costs, parameters));
  enqueue(on, std::make_unique<Launch>(*state.kernel, grid_x, parameters), span.end);
  return cuda::kSuccess;
}

}  // namespace nntap::sim
