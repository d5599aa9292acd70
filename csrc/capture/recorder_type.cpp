#include "capture/recorder_type.hpp"

#include <new>
#include <stdexcept>

#include "capture/hook.hpp"
#include "capture/tap.hpp"
#include "capture/torch_seam.hpp"
#include "python/python_error.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

struct RecorderObject {
  PyObject_HEAD
  Recorder recorder;
};

PyTypeObject* recorder_type = nullptr;  // owned for the life of the process

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

Py_ssize_t checked_path(PyObject* self, Py_ssize_t path) {
  const std::size_t paths = recorder_of(self).paths();
  NNTAP_CHECK(path >= 0 && static_cast<std::size_t>(path) < paths, InvalidArgument, "path ", path,
              " is not one of the recorder's ", paths);
  return path;
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
    TensorOptions options;
    options.slow = Ref::share(slow);
    options.slow_reason = Ref::share(slow_reason);
    options.has_dtype = dtype != Py_None;
    if (options.has_dtype) options.dtype = as_dtype(dtype);
    options.has_target = target != Py_None;
    if (options.has_target) options.target = as_device(target);
    Recorder made(static_cast<std::size_t>(paths), pairs != 0, Ref::share(rebuild), std::move(options));
    PyObject* self = checked(type->tp_alloc(type, 0)).release();
    new (&recorder_of(self)) Recorder(std::move(made));
    return self;
  });
}

int recorder_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return recorder_of(self).traverse(visit, arg);
}

int recorder_clear(PyObject* self) {
  recorder_of(self).clear();
  return 0;
}

void recorder_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  recorder_of(self).clear();
  recorder_of(self).~Recorder();
  type->tp_free(self);
  Py_DECREF(type);
}

PyObject* recorder_record(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> PyObject* {
    NNTAP_CHECK(count == 2, InvalidArgument, "record(code, value) takes 2 arguments, not ", count);
    const Py_ssize_t code = as_number(args[0]);  // see location_code in python/nntap/core.py
    recorder_of(self).record(checked_path(self, code >> 1), static_cast<Slot>(code & 1), args[1]);
    return Py_NewRef(Py_None);
  });
}

PyObject* recorder_hooks(PyObject* self, PyObject*) {
  return guarded([&] {
    const auto paths = static_cast<Py_ssize_t>(recorder_of(self).paths());
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
    NNTAP_CHECK(count == static_cast<Py_ssize_t>(recorder_of(self).paths()), InvalidArgument, count,
                " modules for the recorder's ", recorder_of(self).paths(), " paths");
    tap_modules(modules, self);
    return Py_NewRef(Py_None);
  });
}

PyObject* recorder_untap(PyObject* self, PyObject* modules) {
  return guarded([&] { return PyLong_FromSsize_t(untap_modules(modules, self)); });
}

PyObject* recorder_close(PyObject* self, PyObject*) {
  return guarded([&] {
    recorder_of(self).close();
    return Py_NewRef(Py_None);
  });
}

PyObject* recorder_order(PyObject* self, PyObject*) {
  return guarded([&] {
    const auto order = recorder_of(self).order();
    Ref list = checked(PyList_New(static_cast<Py_ssize_t>(order.size())));
    for (std::size_t i = 0; i < order.size(); ++i) {
      PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), checked(PyLong_FromSsize_t(order[i])).release());
    }
    return list.release();
  });
}

PyObject* recorder_visits(PyObject* self, PyObject* arg) {
  return guarded([&] { return PyLong_FromSize_t(recorder_of(self).visits(checked_path(self, as_number(arg)))); });
}

PyObject* recorder_read(PyObject* self, PyObject* args) {
  return guarded([&]() -> PyObject* {
    Py_ssize_t path, visit, slot;
    checked(PyArg_ParseTuple(args, "nnn:read", &path, &visit, &slot) ? 0 : -1);
    return recorder_of(self).read(checked_path(self, path), visit, checked_slot(slot)).release();
  });
}

PyObject* recorder_stats(PyObject* self, PyObject*) {
  return guarded([&] {
    const TensorRecorder& tensors = recorder_of(self).tensors();
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
     "record(code: int, value: object) -> None\n\nRecords a value; nntap.core.location_code makes the code."},
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
PyType_Spec spec = {"nntap._core.Recorder", sizeof(RecorderObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};

}  // namespace

Recorder& recorder_of(PyObject* object) { return reinterpret_cast<RecorderObject*>(object)->recorder; }

void init_recorder_type(PyObject* module) {
  recorder_type = reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpec(&spec)).release());
  checked(PyModule_AddObjectRef(module, "Recorder", reinterpret_cast<PyObject*>(recorder_type)));
}

}  // namespace nntap
