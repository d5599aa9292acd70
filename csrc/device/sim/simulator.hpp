#pragma once

// The simulated driver: all that the entries of the driver table read and change.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "device/cuda/driver.hpp"
#include "device/sim/clock.hpp"
#include "device/sim/failures.hpp"
#include "device/sim/heap.hpp"
#include "device/sim/rules.hpp"
#include "device/sim/schedule.hpp"

namespace nntap::sim {

using cuda::Context, cuda::DeviceId, cuda::DevicePtr, cuda::Event, cuda::Function, cuda::Module, cuda::Result,
    cuda::Stream;

struct Config {
  std::uint64_t seed = 0;
  Pace pace = Pace::kAny;
  int devices = 1;
  bool lazy = false;  ///< of the default streams
  int major = 9, minor = 0;
  int driver_version = 12080;
  std::size_t free_bytes = std::size_t{64} << 30;  ///< of every device, whatever is taken
  Costs costs;
};

/// What has happened so far. Times are virtual, in nanoseconds.
struct Report {
  struct CopySpan {
    std::size_t bytes;
    int device;
    Time begin, end;
  };
  struct StreamEnd {
    int device;
    Stream stream;
    Time end;
  };
  struct Memory {
    std::size_t used, peak, refused;
  };

  Time host_ns = 0, host_blocked_ns = 0;  ///< of the thread that started the simulation
  Time all_blocked_ns = 0;                ///< of all threads
  std::vector<StreamEnd> stream_ends;
  std::vector<Memory> memory;  ///< by device
  std::vector<CopySpan> copies;
  std::uint64_t launches = 0;
  std::size_t events = 0, events_peak = 0;
  std::size_t registered_bytes = 0, registered_peak_bytes = 0;
};

/// Not thread-safe by itself: active.hpp guards the one that runs. Members throw Violation where a rule is broken.
class Simulator {
 public:
  explicit Simulator(const Config& config);
  ~Simulator() { heap_->close(); }
  Simulator(const Simulator&) = delete;
  Simulator& operator=(const Simulator&) = delete;

  // The entries of the driver table: entries.cpp.
#define NNTAP_ENTRY(name, symbol, parameters) Result name parameters;
  NNTAP_CUDA_DRIVER(NNTAP_ENTRY)
#undef NNTAP_ENTRY

  /// Before the entry's own work: what the call returns instead, if it must fail.
  std::optional<Result> begin_call(Entry entry);
  void end_call() { schedule_.breathe(clock_.now()); }

  /// Writes down a broken rule.
  void note(const char* entry, const std::string& what);

  /// A call that gives something up was made to fail: what it leaves alive is no leak.
  void excuse(Stream stream);
  void excuse(Event event);
  void excuse(void* registered) { registrations_.excuse(registered); }
  void excuse(DeviceId device);
  void excuse(Context*) { contexts_.excuse_pop(); }

  // What a model does on its own streams. Null is the default stream of `device`.
  Stream add_compute_stream(int device, bool lazy);
  void write(Stream stream, int device, void* out, const void* bytes, std::size_t count);
  void move(Stream stream, int device, void* out, const void* source, std::size_t bytes);
  void delay(Stream stream, int device, Time ns);
  void wait(Stream stream, int device, Stream other, int other_device);

  /// A copy from the host. What lies in memory that is not registered is read now, else when the copy runs.
  void upload(Stream stream, int device, void* out, const void* source, std::size_t bytes);

  /// Memory of the device, for that stream; null where it has no room.
  DLManagedTensorVersioned* allocate(Stream stream, int device, std::size_t bytes);
  void set_room(int device, std::size_t bytes);
  void set_capturing(Stream stream, int device, bool capturing);
  void spend(Time ns) { clock_.spend(ns); }

  /// Says which device memory belongs to. What nothing was said of belongs to device 0.
  void place(const void* data, std::size_t bytes, int device);
  int device_of(const void* data) const;

  void fail(Entry entry, std::uint64_t nth, Result result, bool for_good) {
    failures_.plan(entry, nth, result, for_good);
  }
  void hold_copies(bool held) { schedule_.hold_copies(held); }

  /// One step of whatever is ready; false when nothing is.
  bool step() { return schedule_.step(); }
  std::size_t pending() const { return schedule_.pending(); }

  const std::vector<std::string>& violations() const { return violations_; }
  std::vector<std::string> leaks() const;
  Report report() const;
  std::uint64_t calls(Entry entry) const { return failures_.calls(entry); }

 private:
  struct StreamState {
    int device;
    QueueId queue;
    bool eager;  // runs each operation when it is enqueued
    bool model;  // the model's own, not made by the driver's user
    bool capturing = false;
    bool excused = false;
    Time end = 0;
  };
  struct EventState {
    int device;
    std::shared_ptr<Mark> latest;  // null: never recorded
    bool excused = false;
  };
  struct ModuleState {
    int device;
    bool excused = false;
  };
  struct FunctionState {
    int device;
    const Kernel* kernel;
  };

  StreamState add_queue(int device, bool eager, bool model);
  void require_device(int device) const;
  StreamState& find_stream(Stream stream, int device);
  StreamState& usable_stream(Stream stream);
  void require_no_capture();
  Span reserve(const StreamState& stream, Time duration, BusyLine* engine = nullptr);
  void enqueue(StreamState& stream, std::unique_ptr<Operation> operation, Time end);
  void drop_modules(int device);

  Config config_;
  bool initialised_ = false;
  Schedule schedule_;
  HostClock clock_;
  Failures failures_;
  Contexts contexts_;
  std::map<std::thread::id, int> capture_modes_;
  Registrations registrations_;
  std::shared_ptr<Heap> heap_;
  Handles<Stream, StreamState> streams_{"stream"};
  Handles<Event, EventState> events_{"event"};
  Handles<Module, ModuleState> modules_{"module"};
  Handles<Function, FunctionState> functions_{"function"};
  std::vector<StreamState> default_streams_;  // by device
  std::vector<BusyLine> copy_engines_;        // by device
  std::map<std::uintptr_t, std::pair<std::size_t, int>> places_;
  std::uint64_t copies_ = 0;
  Report report_;
  std::vector<std::string> violations_;
};

}  // namespace nntap::sim
