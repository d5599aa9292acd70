#include "capture/recorder.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "capture/hook.hpp"
#include "capture/identity_table.hpp"
#include "capture/nest.hpp"
#include "capture/python_error.hpp"
#include "capture/stall.hpp"
#include "capture/tap.hpp"
#include "capture/ticket.hpp"
#include "capture/torch_seam.hpp"
#include "copy/dtype.hpp"
#include "copy/engine.hpp"
#include "device/registry.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

// Copies from here on let other Python threads run.
constexpr std::size_t kDropGilBytes = std::size_t{4} << 20;

// One call of a module. A slot is null until it is recorded, then a nest with tickets, and once somebody has read it a
// nest with tensors.
struct Visit {
  Ref values[2];
  bool read[2] = {false, false};
};

// A visit whose inputs are recorded and whose output is still to come, or never comes because the call raised.
struct OpenVisit {
  unsigned long thread;
  std::size_t visit;
};

// One module's visits. The first lies inline: most modules are seen once.
class PathRecords {
 public:
  std::size_t size() const { return size_; }
  Visit& operator[](std::size_t i) { return i == 0 ? first_ : later_[i - 1]; }
  const Visit& operator[](std::size_t i) const { return i == 0 ? first_ : later_[i - 1]; }
  std::size_t add() {
    if (size_ > 0) later_.emplace_back();
    return size_++;
  }

  std::vector<OpenVisit> open;

 private:
  std::size_t size_ = 0;
  Visit first_;
  std::vector<Visit> later_;
};

// The state behind one cache. Guarded by the GIL; since walking a value may run Python code and a copy may drop the
// GIL, no reference into `paths` is kept over either.
struct State {
  bool has_dtype = false;
  DLDataType dtype{};       // of every record, where has_dtype
  bool has_target = false;  // else every record stays on its tensor's device
  DLDevice target{kDLCPU, 0};
  bool pairs = false;  // inputs and output of one call make one visit
  bool closed = false;
  Ref slow_reason;  // a str when every tensor goes the slow way, or None
  Ref slow;         // callable (tensor) -> tensor
  Ref rebuild;      // callable (value, walk) -> value, for the less common containers
  std::vector<PathRecords> paths;
  std::vector<Py_ssize_t> order;  // paths by their first record
  ShareTable shared;              // on synchronous devices
  IdentityTable handed_on;        // on asynchronous ones
  CopyStats copies;
  StallStats stalls;
  std::map<std::string, std::uint64_t> slow_counts;
};

struct Recorder {
  PyObject_HEAD
  State state;
};

PyTypeObject* recorder_type = nullptr;  // owned for the life of the process

State& state_of(PyObject* self) { return reinterpret_cast<Recorder*>(self)->state; }

// ---- recording ----

Ref snapshot_slow(State& state, const char* reason, PyObject* tensor) {
  ++state.slow_counts[reason];
  return checked(PyObject_CallOneArg(state.slow.get(), tensor));
}

class SnapshotRequest final : public MemoryRequest {
 public:
  explicit SnapshotRequest(Snapshot& snapshot) : snapshot_(snapshot) {}
  bool place() override { return snapshot_.place(); }
  std::size_t bytes() const override { return snapshot_.bytes(); }
  std::size_t bytes_in_use() const override { return HostPool::instance().stats().used_bytes; }
  void wait(std::chrono::milliseconds patience) override { HostPool::instance().wait_for_return(patience); }

 private:
  Snapshot& snapshot_;
};

class SubmitRequest final : public MemoryRequest {
 public:
  explicit SubmitRequest(const AsynchronousDevice& device) : device_(device) {}
  bool place() override { return device_.submit(); }
  std::size_t bytes() const override { return device_.bytes_wanted(); }
  std::size_t bytes_in_use() const override { return device_.host_bytes_in_use(); }
  bool comes_free() const override { return device_.frees_memory(); }
  void wait(std::chrono::milliseconds patience) override { device_.wait_for_memory(patience); }

 private:
  const AsynchronousDevice& device_;
};

// Gives what a walk has enqueued to the device. What has not been given when it is destroyed, because the walk failed,
// is forgotten, with all that could lead to it.
class Submission {
 public:
  explicit Submission(State& state) : state_(state) {}
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;
  ~Submission() {
    for (const AsynchronousDevice* device : asynchronous_devices()) {
      if (device->bytes_wanted() == 0) continue;
      device->discard();
      state_.handed_on.clear();
    }
  }
  void submit() {
    for (const AsynchronousDevice* device : asynchronous_devices()) {
      if (device->bytes_wanted() == 0) continue;
      SubmitRequest request(*device);
      try {
        place_or_wait(request, state_.copies.bytes_moved, state_.stalls);
      } catch (...) {
        state_.handed_on.clear();
        throw;
      }
    }
  }

 private:
  State& state_;
};

Ref snapshot_now(State& state, const SynchronousDevice& device, const TensorView& source, DLDataType out) {
  Snapshot snapshot(device, source, out);
  if (auto known = snapshot.find_shared(state.shared, state.copies)) return ticket_for(std::move(known));
  SnapshotRequest request(snapshot);
  place_or_wait(request, state.copies.bytes_moved, state.stalls);
  if (snapshot.bytes() < kDropGilBytes) {
    snapshot.copy();
  } else {
    const WithoutGil others_run;
    snapshot.copy();
  }
  return ticket_for(snapshot.commit(state.shared, state.copies));
}

Ref snapshot_later(State& state, const AsynchronousDevice& device, const TensorView& source, DLDataType out,
                   PyObject* tensor) {
  if (auto known = state.handed_on.find(tensor, source, out)) {
    state.copies.count_shared(*known);
    return ticket_for(std::move(known));
  }
  const Plan plan(source, out);
  auto record = make_record(source, out, plan);
  const bool on_device = !state.has_target || state.target.device_type != kDLCPU;
  if (const char* reason = device.enqueue(record, plan.gather, on_device)) {
    return snapshot_slow(state, reason, tensor);
  }
  state.copies.count_copied(*record);
  state.handed_on.remember(tensor, record);
  return ticket_for(std::move(record));
}

bool same(DLDevice a, DLDevice b) { return a.device_type == b.device_type && a.device_id == b.device_id; }

// Why torch has to bring the record to its target, or null.
const char* wrong_target(const State& state, const TensorView& source) {
  if (!state.has_target || state.target.device_type == kDLCPU || same(state.target, source.device)) return nullptr;
  return "another target device";
}

Ref snapshot(State& state, PyObject* tensor) {
  if (state.slow_reason.get() != Py_None) {
    const char* reason = PyUnicode_AsUTF8(state.slow_reason.get());
    if (reason == nullptr) throw PythonErrorSet{};
    return snapshot_slow(state, reason, tensor);
  }
  TensorView source;
  if (const char* reason = torch_seam::view(tensor, source)) return snapshot_slow(state, reason, tensor);
  const Device* device = find_device(source);
  if (device == nullptr) return snapshot_slow(state, "device left to torch", tensor);
  const DLDataType out = state.has_dtype ? state.dtype : source.dtype;
  if (!device->can_cast(source.dtype, out)) return snapshot_slow(state, "cast left to torch", tensor);
  if (const char* reason = wrong_target(state, source)) return snapshot_slow(state, reason, tensor);
  if (const auto* now = device->synchronous()) return snapshot_now(state, *now, source, out);
  return snapshot_later(state, *device->asynchronous(), source, out, tensor);
}

// Replaces tensors by tickets.
class Freezer final : public NestVisitor {
 public:
  explicit Freezer(PyObject* self) : self_(self) {}
  Ref leaf(PyObject* value) override { return torch_seam::is_tensor(value) ? snapshot(state_of(self_), value) : Ref(); }
  Ref uncommon(PyObject* value) override {
    const Ref walk = checked(PyObject_GetAttrString(self_, "_freeze"));
    return checked(PyObject_CallFunctionObjArgs(state_of(self_).rebuild.get(), value, walk.get(), nullptr));
  }

 private:
  PyObject* self_;
};

// Replaces tickets by tensors.
class Thawer final : public NestVisitor {
 public:
  explicit Thawer(PyObject* self) : self_(self) {}
  Ref leaf(PyObject* value) override {
    if (is_ticket(value)) return redeem(value);
    return torch_seam::is_tensor(value) ? Ref::share(value) : Ref();
  }
  Ref uncommon(PyObject* value) override {
    const Ref walk = checked(PyObject_GetAttrString(self_, "_thaw"));
    return checked(PyObject_CallFunctionObjArgs(state_of(self_).rebuild.get(), value, walk.get(), nullptr));
  }

 private:
  PyObject* self_;
};

PathRecords& path_of(State& state, Py_ssize_t path) { return state.paths[static_cast<std::size_t>(path)]; }

// The open visits that this thread has begun from visit `since` on, oldest first.
std::vector<OpenVisit>::iterator first_open(PathRecords& path, std::size_t since) {
  const unsigned long thread = PyThread_get_thread_ident();
  return std::find_if(path.open.begin(), path.open.end(),
                      [=](const OpenVisit& open) { return open.thread == thread && open.visit >= since; });
}

std::vector<OpenVisit>::iterator last_open(PathRecords& path) {
  const unsigned long thread = PyThread_get_thread_ident();
  const auto found =
      std::find_if(path.open.rbegin(), path.open.rend(), [=](const OpenVisit& open) { return open.thread == thread; });
  return found == path.open.rend() ? path.open.end() : std::prev(found.base());
}

// The visit an output belongs to; a new one where no inputs were recorded.
std::size_t close(PathRecords& path, std::vector<OpenVisit>::iterator open) {
  if (open == path.open.end()) return path.add();
  const std::size_t visit = open->visit;
  path.open.erase(open);
  return visit;
}

void store(State& state, Py_ssize_t index, std::size_t visit, Slot slot, Ref value) {
  PathRecords& path = path_of(state, index);
  if (visit == 0 && !path[0].values[0] && !path[0].values[1]) state.order.push_back(index);
  path[visit].values[static_cast<int>(slot)] = std::move(value);
}

std::size_t visit_for(State& state, Py_ssize_t index, Slot slot) {
  PathRecords& path = path_of(state, index);
  if (!state.pairs) return path.add();
  if (slot == Slot::kOutput) return close(path, last_open(path));
  path.open.push_back({PyThread_get_thread_ident(), path.size()});
  return path.add();
}

Ref frozen(PyObject* self, PyObject* value) {
  Freezer freezer(self);
  Submission submission(state_of(self));
  Ref kept = walk_nest(value, freezer);
  submission.submit();
  return kept;
}

}  // namespace

void record(PyObject* self, Py_ssize_t path, Slot slot, PyObject* value) {
  State& state = state_of(self);
  if (state.closed) return;  // a forward in another thread that outlived the capture
  Ref kept = frozen(self, value);
  if (state.closed) return;
  store(state, path, visit_for(state, path, slot), slot, std::move(kept));
}

Call::Call(PyObject* recorder, Py_ssize_t path)
    : recorder_(recorder),
      path_(path),
      since_(state_of(recorder).closed ? 0 : path_of(state_of(recorder), path).size()) {}

Call::~Call() {
  State& state = state_of(recorder_);
  if (state.closed || !state.pairs) return;
  PathRecords& path = path_of(state, path_);
  for (auto open = first_open(path, since_); open != path.open.end(); open = first_open(path, since_)) {
    path.open.erase(open);
  }
}

void Call::record_output(PyObject* value) {
  State& state = state_of(recorder_);
  if (state.closed) return;
  Ref kept = frozen(recorder_, value);
  if (state.closed) return;
  PathRecords& path = path_of(state, path_);
  const std::size_t visit = state.pairs ? close(path, first_open(path, since_)) : path.add();
  store(state, path_, visit, Slot::kOutput, std::move(kept));
}

namespace {

// ---- the Python type ----

// From (type, index), as DLPack numbers them.
DLDevice as_device(PyObject* pair) {
  int type = 0, index = 0;
  NNTAP_CHECK(PyTuple_CheckExact(pair), InvalidArgument, "target must be (type, index)");
  checked(PyArg_ParseTuple(pair, "ii:target", &type, &index) ? 0 : -1);
  return {static_cast<DLDeviceType>(type), index};
}

// From (code, bits), as DLPack numbers them.
DLDataType as_dtype(PyObject* pair) {
  unsigned char code = 0, bits = 0;
  NNTAP_CHECK(PyTuple_CheckExact(pair), InvalidArgument, "dtype must be (code, bits)");
  checked(PyArg_ParseTuple(pair, "bb:dtype", &code, &bits) ? 0 : -1);
  return {code, bits, 1};
}

std::size_t checked_path(const State& state, Py_ssize_t path) {
  NNTAP_CHECK(path >= 0 && static_cast<std::size_t>(path) < state.paths.size(), InvalidArgument, "path ", path,
              " is not one of the recorder's ", state.paths.size());
  return static_cast<std::size_t>(path);
}

Slot checked_slot(Py_ssize_t slot) {
  NNTAP_CHECK(slot == 0 || slot == 1, InvalidArgument, "slot ", slot, " is neither OUTPUT (0) nor INPUTS (1)");
  return static_cast<Slot>(slot);
}

PyObject* recorder_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* names[] = {"paths", "slow", "rebuild", "pairs", "dtype", "target", "slow_reason", nullptr};
    Py_ssize_t paths = 0;
    PyObject *slow, *rebuild, *dtype = Py_None, *target = Py_None, *slow_reason = Py_None;
    int pairs = 0;
    checked(PyArg_ParseTupleAndKeywords(args, kwargs, "nOO|$pOOO:Recorder", const_cast<char**>(names), &paths, &slow,
                                        &rebuild, &pairs, &dtype, &target, &slow_reason)
                ? 0
                : -1);
    NNTAP_CHECK(torch_seam::connected(), std::runtime_error, "connect(torch) must be called before a Recorder is made");
    NNTAP_CHECK(paths >= 0, InvalidArgument, "paths=", paths, " is negative");
    Ref self = checked(type->tp_alloc(type, 0));
    State& state = *new (&state_of(self.get())) State();
    state.paths.resize(static_cast<std::size_t>(paths));
    state.order.reserve(state.paths.size());
    state.shared.reserve(state.paths.size());
    state.slow = Ref::share(slow);
    state.rebuild = Ref::share(rebuild);
    state.slow_reason = Ref::share(slow_reason);
    state.pairs = pairs != 0;
    state.has_dtype = dtype != Py_None;
    if (state.has_dtype) state.dtype = as_dtype(dtype);
    state.has_target = target != Py_None;
    if (state.has_target) state.target = as_device(target);
    return self.release();
  });
}

int recorder_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  State& state = state_of(self);
  Py_VISIT(state.slow.get());
  Py_VISIT(state.rebuild.get());
  for (const PathRecords& path : state.paths) {
    for (std::size_t i = 0; i < path.size(); ++i) {
      Py_VISIT(path[i].values[0].get());
      Py_VISIT(path[i].values[1].get());
    }
  }
  return 0;
}

int recorder_clear(PyObject* self) {
  State& state = state_of(self);
  // Moved out first: dropping a value may run Python code that looks at this recorder.
  const auto paths = std::exchange(state.paths, {});
  const Ref slow = std::exchange(state.slow, Ref()), rebuild = std::exchange(state.rebuild, Ref());
  state.order.clear();
  state.shared.clear();
  state.handed_on.clear();
  state.closed = true;
  return 0;
}

void recorder_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  recorder_clear(self);
  state_of(self).~State();
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* recorder_record(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> PyObject* {
    NNTAP_CHECK(count == 2, InvalidArgument, "record(code, value) takes 2 arguments, not ", count);
    const Py_ssize_t code = as_number(args[0]);
    checked_path(state_of(self), code >> 1);
    record(self, code >> 1, static_cast<Slot>(code & 1), args[1]);
    return Py_NewRef(Py_None);
  });
}

PyObject* recorder_hooks(PyObject* self, PyObject*) {
  return guarded([&] {
    const auto paths = static_cast<Py_ssize_t>(state_of(self).paths.size());
    Ref hooks = checked(PyList_New(paths));
    for (Py_ssize_t path = 0; path < paths; ++path) {
      PyList_SET_ITEM(hooks.get(), path, make_hook(self, path).release());
    }
    return hooks.release();
  });
}

PyObject* recorder_tap(PyObject* self, PyObject* modules) {
  return guarded([&] {
    tap_modules(modules, self);
    return Py_NewRef(Py_None);
  });
}

PyObject* recorder_untap(PyObject* self, PyObject* modules) {
  return guarded([&] {
    untap_modules(modules, self);
    return Py_NewRef(Py_None);
  });
}

PyObject* recorder_close(PyObject* self, PyObject*) {
  State& state = state_of(self);
  state.closed = true;
  state.shared.clear();
  state.handed_on.clear();
  try {
    for (const AsynchronousDevice* device : asynchronous_devices()) device->flush();
  } catch (const CudaError&) {  // whoever reads what did not reach the host is told
  }
  return Py_NewRef(Py_None);
}

PyObject* recorder_order(PyObject* self, PyObject*) {
  return guarded([&] {
    const auto order = state_of(self).order;
    Ref list = checked(PyList_New(static_cast<Py_ssize_t>(order.size())));
    for (std::size_t i = 0; i < order.size(); ++i) {
      PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), checked(PyLong_FromSsize_t(order[i])).release());
    }
    return list.release();
  });
}

PyObject* recorder_visits(PyObject* self, PyObject* arg) {
  return guarded([&] {
    const Py_ssize_t path = as_number(arg);
    const State& state = state_of(self);
    return PyLong_FromSize_t(state.paths[checked_path(state, path)].size());
  });
}

PyObject* recorder_read(PyObject* self, PyObject* args) {
  return guarded([&]() -> PyObject* {
    Py_ssize_t path, number, slot_number;
    checked(PyArg_ParseTuple(args, "nnn:read", &path, &number, &slot_number) ? 0 : -1);
    State& state = state_of(self);
    const auto find = [&]() -> Visit& {
      auto& visits = state.paths[checked_path(state, path)];
      NNTAP_CHECK(number >= 0 && static_cast<std::size_t>(number) < visits.size(), InvalidArgument, "visit ", number,
                  " is not one of ", visits.size());
      return visits[static_cast<std::size_t>(number)];
    };
    const auto slot = static_cast<int>(checked_slot(slot_number));
    const Ref held = find().values[slot];
    if (!held) return Py_NewRef(Py_None);
    if (!find().read[slot]) {
      Thawer thawer(self);
      Ref thawed = walk_nest(held.get(), thawer);
      if (!find().read[slot]) {  // nobody else has read it meanwhile
        find().values[slot] = std::move(thawed);
        find().read[slot] = true;
      }
    }
    return Ref(find().values[slot]).release();
  });
}

PyObject* recorder_freeze(PyObject* self, PyObject* value) {
  return guarded([&] {
    Freezer freezer(self);
    return walk_nest(value, freezer).release();
  });
}

PyObject* recorder_thaw(PyObject* self, PyObject* value) {
  return guarded([&] {
    Thawer thawer(self);
    return walk_nest(value, thawer).release();
  });
}

PyObject* recorder_stats(PyObject* self, PyObject*) {
  return guarded([&] {
    const State& state = state_of(self);
    const Ref slow = checked(PyDict_New());
    for (const auto& [reason, count] : state.slow_counts) {
      const Ref number = checked(PyLong_FromUnsignedLongLong(count));
      checked(PyDict_SetItemString(slow.get(), reason.c_str(), number.get()));
    }
    const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    return checked(Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:O}", "records", number(state.copies.records),
                                 "bytes_recorded", number(state.copies.bytes_recorded), "bytes_moved",
                                 number(state.copies.bytes_moved), "shared", number(state.copies.shared),
                                 "bytes_shared", number(state.copies.bytes_shared), "timed_bytes",
                                 number(state.copies.timed_bytes), "copy_ns", number(state.copies.copy_ns), "stalls",
                                 number(state.stalls.stalls), "stall_ns", number(state.stalls.stall_ns), "slow",
                                 slow.get()))
        .release();
  });
}

template <typename Function>
PyCFunction as_method(Function function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"record", as_method(recorder_record), METH_FASTCALL,
     "record(code: int, value: object) -> None\n\nRecords a value; code is 2 * path + slot."},
    {"hooks", recorder_hooks, METH_NOARGS,
     "hooks() -> list[Hook]\n\nFor each path a forward pre-hook with kwargs that records its module's inputs."},
    {"tap", recorder_tap, METH_O,
     "tap(modules: Sequence[Module]) -> None\n\nRecords the outputs of these, one for each path, until untap."},
    {"untap", recorder_untap, METH_O, "untap(modules: Sequence[Module]) -> None\n\nTakes the taps off."},
    {"close", recorder_close, METH_NOARGS, "close() -> None\n\nRecords nothing more; keeps what there is."},
    {"order", recorder_order, METH_NOARGS, "order() -> list[int]\n\nThe paths with records, by their first one."},
    {"visits", recorder_visits, METH_O, "visits(path: int) -> int\n\nHow many calls of it were recorded."},
    {"read", recorder_read, METH_VARARGS,
     "read(path: int, visit: int, slot: int) -> object\n\nThe recorded value, or None where there is none."},
    {"stats", recorder_stats, METH_NOARGS, "stats() -> dict[str, Any]"},
    {"_freeze", recorder_freeze, METH_O, "The value with tickets for its tensors."},
    {"_thaw", recorder_thaw, METH_O, "The value with tensors for its tickets."},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(recorder_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(recorder_dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(recorder_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(recorder_clear)},
    {Py_tp_methods, methods},
    {Py_tp_doc, const_cast<char*>("What one cache records: values by path and visit.")},
    {0, nullptr},
};
PyType_Spec spec = {"nntap._core.Recorder", sizeof(Recorder), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};

}  // namespace

void init_recorder_type(PyObject* module) {
  recorder_type = reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpec(&spec)).release());
  checked(PyModule_AddObjectRef(module, "Recorder", reinterpret_cast<PyObject*>(recorder_type)));
}

}  // namespace nntap
