#include "nnsight/replacement.hpp"

#include <cstddef>
#include <cstring>

namespace nntap {
namespace {

// A function's binding: `interleaver.handle` is a method of that interleaver.
PyObject* bind(PyObject* self, PyObject* owner, PyObject*) {
  return owner == nullptr ? Py_NewRef(self) : PyMethod_New(self, owner);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(replacement_of(self)->original);
  return 0;
}

int clear(PyObject* self) {
  Py_CLEAR(replacement_of(self)->original);
  return 0;
}

void dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Replacement, vectorcall), READONLY, nullptr},
    {"__wrapped__", T_OBJECT, offsetof(Replacement, original), READONLY, "The function it stands for."},
    {nullptr, 0, 0, 0, nullptr},
};

}  // namespace

PyTypeObject* add_replacement_type(PyObject* module, const char* qualified_name, const char* doc, newfunc make) {
  PyType_Slot slots[] = {
      {Py_tp_new, reinterpret_cast<void*>(make)},
      {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
      {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
      {Py_tp_clear, reinterpret_cast<void*>(clear)},
      {Py_tp_members, members},
      {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
      {Py_tp_descr_get, reinterpret_cast<void*>(bind)},
      {Py_tp_doc, const_cast<char*>(doc)},
      {0, nullptr},
  };
  PyType_Spec spec = {
      qualified_name, sizeof(Replacement), 0,
      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR, slots};
  Ref type = checked(PyType_FromSpec(&spec));
  checked(PyModule_AddObjectRef(module, std::strrchr(qualified_name, '.') + 1, type.get()));
  return reinterpret_cast<PyTypeObject*>(type.release());
}

}  // namespace nntap
