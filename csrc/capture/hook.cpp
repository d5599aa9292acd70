#include "capture/hook.hpp"

#include <cstddef>

#include "capture/recorder_type.hpp"
#include "python/python_error.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

struct Hook {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject* recorder;  // owned
  Py_ssize_t path;
};

PyTypeObject* hook_type = nullptr;  // owned for the life of the process

Hook* hook_of(PyObject* self) { return reinterpret_cast<Hook*>(self); }

// torch calls hook(module, args, kwargs), or without kwargs: it copies a module's hooks before it runs them, and asks
// for each whether it takes kwargs when its turn comes, when the hook may have been removed.
PyObject* call(PyObject* self, PyObject* const* args, size_t nargsf, PyObject*) {
  return guarded([&] {
    const Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    NNTAP_CHECK(count == 2 || count == 3, InvalidArgument, "a forward pre-hook takes (module, args, kwargs), not ",
                count, " arguments");
    const Ref kwargs = count == 3 ? Ref::share(args[2]) : checked(PyDict_New());
    const Ref pair = checked(PyTuple_Pack(2, args[1], kwargs.get()));
    recorder_of(hook_of(self)->recorder).record(hook_of(self)->path, Slot::kInputs, pair.get());
    return Py_NewRef(Py_None);
  });
}

PyObject* reduce(PyObject*, PyObject*) {
  return guarded([] { return copied_by("copied_hook").release(); });
}

int hook_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(hook_of(self)->recorder);
  return 0;
}

int hook_clear(PyObject* self) {
  Py_CLEAR(hook_of(self)->recorder);
  return 0;
}

void hook_dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  hook_clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyMethodDef methods[] = {
    {"__reduce__", reduce, METH_NOARGS, "Copies and pickles record nothing."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Hook, vectorcall), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(hook_dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(hook_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(hook_clear)},
    {Py_tp_members, members},
    {Py_tp_methods, methods},
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_doc, const_cast<char*>("A forward pre-hook that records the inputs of one module.")},
    {0, nullptr},
};
PyType_Spec spec = {
    "nntap._core.Hook", sizeof(Hook), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};

}  // namespace

Ref copied_by(const char* function) {
  const Ref module = checked(PyImport_ImportModule("nntap.hooks"));
  const Ref copied = checked(PyObject_GetAttrString(module.get(), function));
  return checked(Py_BuildValue("O()", copied.get()));
}

void init_hook_type(PyObject* module) {
  hook_type = reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpec(&spec)).release());
  checked(PyModule_AddObjectRef(module, "Hook", reinterpret_cast<PyObject*>(hook_type)));
}

Ref make_hook(PyObject* recorder, Py_ssize_t path) {
  Ref self = checked(hook_type->tp_alloc(hook_type, 0));
  Hook* hook = hook_of(self.get());
  hook->vectorcall = call;
  hook->recorder = Py_NewRef(recorder);
  hook->path = path;
  return self;
}

}  // namespace nntap
