#pragma once

// A Python function of the core's that takes the place of one of nnsight's, in its class, and keeps the original.

#include "python/python.hpp"
#include "python/python_error.hpp"

namespace nntap {

struct Replacement {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject* original;  // owned
};

inline Replacement* replacement_of(PyObject* self) { return reinterpret_cast<Replacement*>(self); }

/// The original's answer to the same call.
inline PyObject* call_original(PyObject* self, PyObject* const* args, size_t nargsf, PyObject* kwnames) {
  return PyObject_Vectorcall(replacement_of(self)->original, args, nargsf & ~PY_VECTORCALL_ARGUMENTS_OFFSET, kwnames);
}

/// Makes a type of replacements and adds it to the module. The texts live for ever, and so does the type: the caller
/// owns the reference.
PyTypeObject* add_replacement_type(PyObject* module, const char* qualified_name, const char* doc, newfunc make);

/// The `make` of a type whose objects answer calls with `call`.
template <vectorcallfunc call>
PyObject* make_replacement(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* keywords[] = {"original", nullptr};
    PyObject* original = nullptr;
    checked(PyArg_ParseTupleAndKeywords(args, kwargs, "O", const_cast<char**>(keywords), &original) ? 0 : -1);
    Ref self = checked(type->tp_alloc(type, 0));
    replacement_of(self.get())->vectorcall = call;
    replacement_of(self.get())->original = Py_NewRef(original);
    return self.release();
  });
}

}  // namespace nntap
