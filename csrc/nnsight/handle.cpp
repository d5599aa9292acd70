#include "nnsight/handle.hpp"

#include <structmember.h>
#include <cstddef>

#include "capture/python_error.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

struct Handle {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject* original;  // owned
};

// Interned, for the life of the process.
struct Names {
  PyObject *parked, *observers, *counts, *fragments, *batcher, *batching, *batch_group, *narrow, *observe_selected,
      *enabled;
} names;

Handle* handle_of(PyObject* self) { return reinterpret_cast<Handle*>(self); }

Ref attribute(PyObject* owner, PyObject* name) { return checked(PyObject_GetAttr(owner, name)); }

bool is_true(PyObject* value) {
  const int answer = PyObject_IsTrue(value);
  checked(answer);
  return answer != 0;
}

// Whether some worker waits at the location.
bool is_awaited(PyObject* interleaver, PyObject* provider) {
  const Ref parked = attribute(interleaver, names.parked);
  const int found = PySequence_Contains(parked.get(), provider);
  checked(found);
  return found != 0;
}

// The (worker, cache, what to keep) tuples of a location, or an empty reference.
Ref observers_of(PyObject* interleaver, PyObject* provider) {
  const Ref observers = attribute(interleaver, names.observers);
  NNTAP_CHECK(PyDict_Check(observers.get()), InvalidArgument, "Interleaver.observers is no dict");
  PyObject* found = PyDict_GetItemWithError(observers.get(), provider);
  if (found == nullptr && PyErr_Occurred()) throw PythonErrorSet{};
  return Ref::share(found);
}

void count_visit(PyObject* interleaver, PyObject* provider) {
  const Ref counts = attribute(interleaver, names.counts);
  NNTAP_CHECK(PyDict_Check(counts.get()), InvalidArgument, "Interleaver.counts is no dict");
  PyObject* count = PyDict_GetItemWithError(counts.get(), provider);
  if (count == nullptr && PyErr_Occurred()) throw PythonErrorSet{};
  const Py_ssize_t visits = count == nullptr ? 0 : PyLong_AsSsize_t(count);
  if (visits == -1 && PyErr_Occurred()) throw PythonErrorSet{};
  checked(PyDict_SetItem(counts.get(), provider, checked(PyLong_FromSsize_t(visits + 1)).get()));
}

// The rows of the value that belong to the worker; the value itself where the run has one invoke.
Ref rows_of(PyObject* batcher, PyObject* worker, PyObject* value) {
  if (batcher == Py_None || !is_true(attribute(batcher, names.batching).get())) return Ref::share(value);
  const Ref group = attribute(worker, names.batch_group);
  return checked(PyObject_CallMethodObjArgs(batcher, names.narrow, value, group.get(), nullptr));
}

void show(PyObject* interleaver, PyObject* observers, PyObject* value) {
  const Ref batcher = attribute(interleaver, names.batcher);
  const Ref all = checked(PySequence_Tuple(observers));  // a cache may run Python code
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(all.get()); ++i) {
    PyObject* entry = PyTuple_GET_ITEM(all.get(), i);
    NNTAP_CHECK(PyTuple_Check(entry) && PyTuple_GET_SIZE(entry) == 3, InvalidArgument,
                "an entry of Interleaver.observers is no (worker, cache, selected)");
    const Ref rows = rows_of(batcher.get(), PyTuple_GET_ITEM(entry, 0), value);
    PyObject* arguments[] = {PyTuple_GET_ITEM(entry, 1), PyTuple_GET_ITEM(entry, 2), rows.get()};
    checked(PyObject_VectorcallMethod(names.observe_selected, arguments, 3, nullptr));
  }
}

// Whether some values of this model are pieces that must be made whole before anybody sees them.
bool may_hold_pieces(PyObject* interleaver) {
  const Ref fragments = attribute(interleaver, names.fragments);
  return fragments.get() != Py_None && is_true(attribute(fragments.get(), names.enabled).get());
}

// The value where this visit is done, or an empty reference where the original has to do it.
Ref handle(PyObject* interleaver, PyObject* provider, PyObject* value) {
  if (is_awaited(interleaver, provider)) return Ref();
  const Ref observers = observers_of(interleaver, provider);
  if (observers) {
    if (may_hold_pieces(interleaver)) return Ref();
    count_visit(interleaver, provider);
    show(interleaver, observers.get(), value);
  } else {
    count_visit(interleaver, provider);
  }
  return Ref::share(value);
}

PyObject* call(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  return guarded([&]() -> PyObject* {
    if (PyVectorcall_NARGS(nargsf) == 3 && kwnames == nullptr) {
      if (Ref done = handle(args[0], args[1], args[2])) return done.release();
    }
    return PyObject_Vectorcall(handle_of(self)->original, args, nargsf & ~PY_VECTORCALL_ARGUMENTS_OFFSET, kwnames);
  });
}

// A function's binding: `interleaver.handle` is a method of that interleaver.
PyObject* handle_get(PyObject* self, PyObject* owner, PyObject*) {
  return owner == nullptr ? Py_NewRef(self) : PyMethod_New(self, owner);
}

PyObject* handle_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* keywords[] = {"original", nullptr};
    PyObject* original = nullptr;
    checked(PyArg_ParseTupleAndKeywords(args, kwargs, "O:Handle", const_cast<char**>(keywords), &original) ? 0 : -1);
    Ref self = checked(type->tp_alloc(type, 0));
    handle_of(self.get())->vectorcall = call;
    handle_of(self.get())->original = Py_NewRef(original);
    return self.release();
  });
}

int handle_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(handle_of(self)->original);
  return 0;
}

int handle_clear(PyObject* self) {
  Py_CLEAR(handle_of(self)->original);
  return 0;
}

void handle_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  handle_clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Handle, vectorcall), READONLY, nullptr},
    {"__wrapped__", T_OBJECT, offsetof(Handle, original), READONLY, "The function it stands for."},
    {nullptr, 0, 0, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(handle_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(handle_dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(handle_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(handle_clear)},
    {Py_tp_members, members},
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_descr_get, reinterpret_cast<void*>(handle_get)},
    {Py_tp_doc, const_cast<char*>("What stands for nnsight's Interleaver.handle.")},
    {0, nullptr},
};
PyType_Spec spec = {"nntap._core.Handle", sizeof(Handle), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
                    slots};

PyObject* intern(const char* name) { return checked(PyUnicode_InternFromString(name)).release(); }

}  // namespace

void init_handle_type(PyObject* module) {
  names = {intern("parked"),   intern("observers"),   intern("counts"), intern("fragments"),        intern("batcher"),
           intern("batching"), intern("batch_group"), intern("narrow"), intern("observe_selected"), intern("enabled")};
  const Ref type = checked(PyType_FromSpec(&spec));
  checked(PyModule_AddObjectRef(module, "Handle", type.get()));
}

}  // namespace nntap
