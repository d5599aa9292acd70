#include "capture/recorder.hpp"

#include <new>
#include <vector>

#include "capture/hook.hpp"
#include "capture/nest.hpp"
#include "capture/tap.hpp"
#include "capture/tensor_recorder.hpp"
#include "capture/ticket.hpp"
#include "capture/torch_seam.hpp"
#include "capture/visits.hpp"
#include "device/registry.hpp"
#include "python/python_error.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

// The state behind one cache. Guarded by the GIL; since walking a value may run Python code and a copy may drop the
// GIL, no reference into `paths` is kept over either.
struct State {
  bool pairs = false;  // inputs and output of one call make one visit
  bool closed = false;
  Ref rebuild;  // callable (value, walk) -> value, for the less common containers
  TensorRecorder tensors;
  std::vector<Visits> paths;
  std::vector<Py_ssize_t> order;  // paths by their first record
};

struct Recorder {
  PyObject_HEAD
  State state;
};

PyTypeObject* recorder_type = nullptr;  // owned for the life of the process

State& state_of(PyObject* self) { return reinterpret_cast<Recorder*>(self)->state; }

// ---- recording ----

// Replaces tensors by tickets.
class Freezer final : public NestVisitor {
 public:
  explicit Freezer(PyObject* self) : self_(self) {}
  Ref leaf(PyObject* value) override {
    return torch_seam::is_tensor(value) ? state_of(self_).tensors.record(value) : Ref();
  }
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
    if (is_ticket(value)) {
      state_of(self_).tensors.keep_read(value);
      return redeem(value);
    }
    return torch_seam::is_tensor(value) ? Ref::share(value) : Ref();
  }
  Ref uncommon(PyObject* value) override {
    const Ref walk = checked(PyObject_GetAttrString(self_, "_thaw"));
    return checked(PyObject_CallFunctionObjArgs(state_of(self_).rebuild.get(), value, walk.get(), nullptr));
  }

 private:
  PyObject* self_;
};

Visits& path_of(State& state, Py_ssize_t path) { return state.paths[static_cast<std::size_t>(path)]; }

void store(State& state, Py_ssize_t index, std::size_t visit, Slot slot, Ref value) {
  Visits& path = path_of(state, index);
  if (visit == 0 && !path[0].values[0] && !path[0].values[1]) state.order.push_back(index);
  path[visit].values[static_cast<int>(slot)] = std::move(value);
}

std::size_t visit_for(State& state, Py_ssize_t index, Slot slot) {
  Visits& path = path_of(state, index);
  if (!state.pairs) return path.add();
  return slot == Slot::kOutput ? path.close_last() : path.open();
}

Ref frozen(PyObject* self, PyObject* value) {
  Freezer freezer(self);
  TensorRecorder& tensors = state_of(self).tensors;
  try {
    Ref kept = walk_nest(value, freezer);
    tensors.submit();
    return kept;
  } catch (...) {
    tensors.discard();
    throw;
  }
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
  path_of(state, path_).abandon(since_);
}

void Call::record_output(PyObject* value) {
  State& state = state_of(recorder_);
  if (state.closed) return;
  Ref kept = frozen(recorder_, value);
  if (state.closed) return;
  Visits& path = path_of(state, path_);
  const std::size_t visit = state.pairs ? path.close_first(since_) : path.add();
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
    state.pairs = pairs != 0;
    state.rebuild = Ref::share(rebuild);
    state.tensors.expect(state.paths.size());
    TensorOptions& options = state.tensors.options;
    options.slow = Ref::share(slow);
    options.slow_reason = Ref::share(slow_reason);
    options.has_dtype = dtype != Py_None;
    if (options.has_dtype) options.dtype = as_dtype(dtype);
    options.has_target = target != Py_None;
    if (options.has_target) options.target = as_device(target);
    return self.release();
  });
}

int recorder_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  State& state = state_of(self);
  Py_VISIT(state.tensors.options.slow.get());
  Py_VISIT(state.rebuild.get());
  for (const Visits& path : state.paths) {
    for (std::size_t i = 0; i < path.size(); ++i) {
      Py_VISIT(path[i].values[0].get());
      Py_VISIT(path[i].values[1].get());
    }
  }
  return 0;
}

int recorder_clear(PyObject* self) {
  State& state = state_of(self);
  state.closed = true;
  // Moved out first: dropping a value may run Python code that looks at this recorder.
  const auto paths = std::exchange(state.paths, {});
  const Ref slow = std::exchange(state.tensors.options.slow, Ref()), rebuild = std::exchange(state.rebuild, Ref());
  state.order.clear();
  state.tensors.forget_tensors();
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
    const Py_ssize_t count = PySequence_Size(modules);
    NNTAP_CHECK(count == static_cast<Py_ssize_t>(state_of(self).paths.size()), InvalidArgument, count,
                " modules for the recorder's ", state_of(self).paths.size(), " paths");
    tap_modules(modules, self);
    return Py_NewRef(Py_None);
  });
}

PyObject* recorder_untap(PyObject* self, PyObject* modules) {
  return guarded([&] { return PyLong_FromSsize_t(untap_modules(modules, self)); });
}

PyObject* recorder_close(PyObject* self, PyObject*) {
  return guarded([&] {
    State& state = state_of(self);
    state.closed = true;
    state.tensors.forget_tensors();
    try {
      for (const AsynchronousDevice* device : asynchronous_devices()) device->flush();
    } catch (const CudaError&) {  // whoever reads what did not reach the host is told
    }
    return Py_NewRef(Py_None);
  });
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
    const TensorRecorder& tensors = state_of(self).tensors;
    const Ref slow = checked(PyDict_New());
    for (const auto& [reason, count] : tensors.slow_counts) {
      const Ref number = checked(PyLong_FromUnsignedLongLong(count));
      checked(PyDict_SetItemString(slow.get(), reason.c_str(), number.get()));
    }
    const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    const CopyStats& copies = tensors.copies;
    return checked(Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:O}", "records", number(copies.records),
                                 "bytes_recorded", number(copies.bytes_recorded), "bytes_moved",
                                 number(copies.bytes_moved), "shared", number(copies.shared), "bytes_shared",
                                 number(copies.bytes_shared), "timed_bytes", number(copies.timed_bytes), "copy_ns",
                                 number(copies.copy_ns), "stalls", number(tensors.stalls.stalls), "stall_ns",
                                 number(tensors.stalls.stall_ns), "slow", slow.get()))
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
    {"untap", recorder_untap, METH_O,
     "untap(modules: Sequence[Module]) -> int\n\nTakes the taps off; returns how many were not there."},
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
