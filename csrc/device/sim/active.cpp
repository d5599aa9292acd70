#include "device/sim/active.hpp"

#include <dlpack/dlpack.h>
#include <pthread.h>

#include <new>

namespace nntap::sim {
namespace {

// Never destroyed: a driver call may come from a thread that outlives the interpreter.
std::mutex& mutex() {
  static auto* one = new std::mutex;
  return *one;
}

Simulator* running = nullptr;   // guarded by the mutex
std::uint64_t simulations = 0;  // guarded by the mutex

constexpr bool gives_up(Entry entry) {
  return entry == Entry::stream_destroy || entry == Entry::event_destroy || entry == Entry::host_unregister ||
         entry == Entry::primary_context_release || entry == Entry::context_pop;
}

// The function of an entry, from the type of its place in the table.
template <typename Pointer>
struct EntryFunction;

template <typename... Parameters>
struct EntryFunction<Result (*)(Parameters...)> {
  template <Entry kEntry, Result (Simulator::*kMethod)(Parameters...)>
  static Result call(Parameters... parameters) {
    const Active active;
    if (active.get() == nullptr) return cuda::kDeinitialized;
    if (const auto failed = active->begin_call(kEntry)) {
      if constexpr (gives_up(kEntry)) active->excuse(parameters...);
      return *failed;
    }
    Result result;
    try {
      result = ((*active).*kMethod)(parameters...);
    } catch (const Violation& broken) {
      active->note(kEntryNames[static_cast<std::size_t>(kEntry)], broken.text);
      result = broken.result;
    } catch (const std::bad_alloc&) {
      return cuda::kOutOfMemory;
    }
    active->end_call();
    return result;
  }
};

cuda::Driver make_table() {
  cuda::Driver table;
#define NNTAP_ENTRY(name, symbol, parameters) \
  table.name = &EntryFunction<decltype(table.name)>::call<Entry::name, &Simulator::name>;
  NNTAP_CUDA_DRIVER(NNTAP_ENTRY)
#undef NNTAP_ENTRY
  return table;
}

// ---- platform ----

struct CurrentStreams {
  std::uint64_t simulation = 0;
  std::vector<std::pair<int, Stream>> stack;  // device and stream
};

thread_local CurrentStreams current_streams;

std::uint64_t simulation() {
  const Active active;
  return active.get() == nullptr ? 0 : simulations;
}

// Those of this thread in this simulation: what an earlier one left is dropped.
std::vector<std::pair<int, Stream>>& current_stack() {
  const std::uint64_t now = simulation();
  if (current_streams.simulation != now) current_streams = {now, {}};
  return current_streams.stack;
}

// Tensors of the host play those of the device.
int device_of(int dl_device_type, int, const void* data) {
  if (dl_device_type != kDLCPU) return -1;
  const Active active;
  return active.get() == nullptr ? -1 : active->device_of(data);
}

int current_stream(int device, Stream* stream) {
  *stream = nullptr;
  const auto& stack = current_stack();
  for (auto at = stack.rbegin(); at != stack.rend(); ++at) {
    if (at->first != device) continue;
    *stream = at->second;
    break;
  }
  return cuda::kSuccess;
}

DeviceMemory allocate(int device, std::size_t bytes) noexcept {
  Stream stream = nullptr;
  current_stream(device, &stream);
  const Active active;
  return active.get() == nullptr ? DeviceMemory() : DeviceMemory(active->allocate(stream, device, bytes));
}

}  // namespace

Active::Active() : lock_(mutex()), simulator_(running) {}

Simulator& Active::operator*() const {
  if (simulator_ == nullptr) throw std::runtime_error("no simulation runs");
  return *simulator_;
}

void start(const Config& config) {
  NNTAP_CHECK(config.devices >= 0 && config.devices <= 64, InvalidArgument, "devices=", config.devices,
              " is not allowed: give 0 to 64");
  NNTAP_CHECK(config.costs.link_bytes_per_second > 0 && config.costs.memory_bytes_per_second > 0, InvalidArgument,
              "rates must be above 0 bytes per second");
  // A child of a fork finds the mutex free and the simulator whole.
  static const int watching =
      pthread_atfork([] { mutex().lock(); }, [] { mutex().unlock(); }, [] { mutex().unlock(); });
  (void)watching;
  const std::lock_guard<std::mutex> lock(mutex());
  NNTAP_CHECK(running == nullptr, InvalidArgument, "a simulation runs already: one at a time");
  running = new Simulator(config);
  ++simulations;
}

void stop() {
  const std::lock_guard<std::mutex> lock(mutex());
  delete running;
  running = nullptr;
}

const cuda::Platform& platform() {
  static const cuda::Driver table = make_table();
  static const cuda::Platform simulated{&table, device_of, current_stream, allocate};
  return simulated;
}

void push_current_stream(int device, Stream stream) { current_stack().emplace_back(device, stream); }

void pop_current_stream() {
  auto& stack = current_stack();
  NNTAP_CHECK(!stack.empty(), InvalidArgument, "this thread has entered no stream");
  stack.pop_back();
}

}  // namespace nntap::sim
