#include "capture/tap.hpp"

#include <algorithm>
#include <deque>
#include <new>
#include <vector>

#include "capture/hook.hpp"
#include "capture/recorder_type.hpp"
#include "python/python_error.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

struct Listener {
  Ref recorder;
  Py_ssize_t path;
};

struct Tap {
  PyObject_HEAD
  PyObject* module;    // owned: a cycle while the tap is on, since the module holds it
  PyObject* previous;  // owned: the compiled call it stands before, or null
  std::vector<Listener> listeners;
};

// Owned for the life of the process.
PyTypeObject* tap_type = nullptr;
PyObject* slot_name = nullptr;
PyObject* call_impl = nullptr;

Tap* tap_of(PyObject* self) { return reinterpret_cast<Tap*>(self); }

Ref call_module(const Tap& tap, PyObject* args, PyObject* kwargs) {
  const Ref call =
      tap.previous != nullptr ? Ref::share(tap.previous) : checked(PyObject_GetAttr(tap.module, call_impl));
  return checked(PyObject_Call(call.get(), args, kwargs));
}

// The listener is copied: the capture may end before the call does.
Ref call_for_one(const Tap& tap, PyObject* args, PyObject* kwargs) {
  const Listener listener = tap.listeners.front();
  Call call(recorder_of(listener.recorder.get()), listener.path);
  Ref output = call_module(tap, args, kwargs);
  call.record_output(output.get());
  return output;
}

Ref call_for_all(const Tap& tap, PyObject* args, PyObject* kwargs) {
  const std::vector<Listener> listeners = tap.listeners;
  std::deque<Call> calls;  // a Call stays where it was made
  for (const Listener& listener : listeners) calls.emplace_back(recorder_of(listener.recorder.get()), listener.path);
  Ref output = call_module(tap, args, kwargs);
  for (Call& call : calls) call.record_output(output.get());
  return output;
}

PyObject* tap_call(PyObject* self, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    const Tap& tap = *tap_of(self);
    if (tap.listeners.size() == 1) return call_for_one(tap, args, kwargs).release();
    return call_for_all(tap, args, kwargs).release();
  });
}

int tap_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(tap_of(self)->module);
  Py_VISIT(tap_of(self)->previous);
  for (const Listener& listener : tap_of(self)->listeners) Py_VISIT(listener.recorder.get());
  return 0;
}

int tap_clear(PyObject* self) {
  Py_CLEAR(tap_of(self)->module);
  Py_CLEAR(tap_of(self)->previous);
  const auto listeners = std::exchange(tap_of(self)->listeners, {});
  return 0;
}

void tap_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  tap_clear(self);
  tap_of(self)->listeners.~vector();
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* reduce(PyObject*, PyObject*) {
  return guarded([] { return copied_by("copied_tap").release(); });
}

PyMethodDef methods[] = {
    {"__reduce__", reduce, METH_NOARGS, "Copies and pickles of a module have no tap."},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_methods, methods},
    {Py_tp_dealloc, reinterpret_cast<void*>(tap_dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(tap_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(tap_clear)},
    {Py_tp_call, reinterpret_cast<void*>(tap_call)},
    {Py_tp_doc, const_cast<char*>("The call of a module that is being recorded.")},
    {0, nullptr},
};
PyType_Spec spec = {"nntap._core.Tap", sizeof(Tap), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

Ref make_tap(PyObject* module, PyObject* previous) {
  Ref self = checked(tap_type->tp_alloc(tap_type, 0));
  new (&tap_of(self.get())->listeners) std::vector<Listener>();
  tap_of(self.get())->module = Py_NewRef(module);
  tap_of(self.get())->previous = Py_XNewRef(previous == Py_None ? nullptr : previous);
  return self;
}

void tap_module(PyObject* module, PyObject* recorder, Py_ssize_t path) {
  const Ref dict = dict_of(module);
  Ref tap = item(dict.get(), slot_name);
  if (!tap || !Py_IS_TYPE(tap.get(), tap_type)) {
    tap = make_tap(module, tap.get());
    checked(PyDict_SetItem(dict.get(), slot_name, tap.get()));
  }
  tap_of(tap.get())->listeners.push_back({Ref::share(recorder), path});
}

// False where something else stands in the tap's place.
bool untap_module(PyObject* module, PyObject* recorder) {
  const Ref dict = dict_of(module);
  const Ref tap = item(dict.get(), slot_name);
  if (!tap || !Py_IS_TYPE(tap.get(), tap_type)) return false;
  auto& listeners = tap_of(tap.get())->listeners;
  const auto mine = std::find_if(listeners.begin(), listeners.end(),
                                 [&](const Listener& listener) { return listener.recorder.get() == recorder; });
  if (mine == listeners.end()) return false;
  const Listener gone = std::move(*mine);  // freed at the end, when the list is whole again
  listeners.erase(mine);
  if (!listeners.empty()) return true;
  PyObject* previous = tap_of(tap.get())->previous;
  checked(previous == nullptr ? PyDict_DelItem(dict.get(), slot_name)
                              : PyDict_SetItem(dict.get(), slot_name, previous));
  return true;
}

}  // namespace

void init_tap_type() {
  tap_type = reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpec(&spec)).release());
  slot_name = interned("_compiled_call_impl");
  call_impl = interned("_call_impl");
}

void tap_modules(PyObject* modules, PyObject* recorder) {
  const Ref all = checked(PySequence_Tuple(modules));
  try {
    for (Py_ssize_t path = 0; path < PyTuple_GET_SIZE(all.get()); ++path) {
      tap_module(PyTuple_GET_ITEM(all.get(), path), recorder, path);
    }
  } catch (...) {
    const ErrorSetAside aside;
    untap_modules(all.get(), recorder);
    throw;
  }
}

Py_ssize_t untap_modules(PyObject* modules, PyObject* recorder) {
  const Ref all = checked(PySequence_Tuple(modules));
  Py_ssize_t lost = 0;
  for (Py_ssize_t path = 0; path < PyTuple_GET_SIZE(all.get()); ++path) {
    lost += untap_module(PyTuple_GET_ITEM(all.get(), path), recorder) ? 0 : 1;
  }
  return lost;
}

}  // namespace nntap
