#include "capture/nest.hpp"

#include "capture/python_error.hpp"

namespace nntap {
namespace {

bool is_atom(PyObject* value) {
  return value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value) ||
         PyUnicode_CheckExact(value);
}

Ref walk_tuple(PyObject* value, NestVisitor& visitor) {
  const Py_ssize_t size = PyTuple_GET_SIZE(value);
  Ref out = checked(PyTuple_New(size));
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyTuple_SET_ITEM(out.get(), i, walk_nest(PyTuple_GET_ITEM(value, i), visitor).release());
  }
  return out;
}

// Lists and dicts can change while an item is walked, because that may run Python code of the user's.
Ref walk_list(PyObject* value, NestVisitor& visitor) {
  Ref out = checked(PyList_New(0));
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(value); ++i) {
    const Ref item = Ref::share(PyList_GET_ITEM(value, i));
    checked(PyList_Append(out.get(), walk_nest(item.get(), visitor).get()));
  }
  return out;
}

Ref walk_dict(PyObject* value, NestVisitor& visitor) {
  Ref out = checked(PyDict_Copy(value));
  const Ref items = checked(PyDict_Items(out.get()));
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.get()); ++i) {
    PyObject* item = PyList_GET_ITEM(items.get(), i);
    const Ref walked = walk_nest(PyTuple_GET_ITEM(item, 1), visitor);
    checked(PyDict_SetItem(out.get(), PyTuple_GET_ITEM(item, 0), walked.get()));
  }
  return out;
}

}  // namespace

Ref walk_nest(PyObject* value, NestVisitor& visitor) {
  if (is_atom(value)) return Ref::share(value);
  if (Ref replaced = visitor.leaf(value)) return replaced;
  const RecursionGuard guard(" while walking a nested value");
  if (PyTuple_CheckExact(value)) return walk_tuple(value, visitor);
  if (PyList_CheckExact(value)) return walk_list(value, visitor);
  if (PyDict_CheckExact(value)) return walk_dict(value, visitor);
  return visitor.uncommon(value);
}

}  // namespace nntap
