#include "capture/nest.hpp"

#include <stdexcept>

#include "python/python_error.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

// walk(value): the capsule's context is the visitor, while it lives.
PyObject* walk_again(PyObject* capsule, PyObject* value) {
  return guarded([&] {
    auto* visitor = static_cast<NestVisitor*>(PyCapsule_GetContext(capsule));
    NNTAP_CHECK(visitor != nullptr, std::runtime_error,
                "the value that this walk belongs to has been recorded or read");
    return walk_nest(value, *visitor).release();
  });
}

PyMethodDef walk_method = {"walk", walk_again, METH_O, "walk(value)\n\nThe value with each leaf replaced."};

bool is_atom(PyObject* value) {
  return value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value) || PyFloat_CheckExact(value) ||
         PyUnicode_CheckExact(value);
}

// A list or dict whose items are being walked, what is made of it, and the one around it.
struct Open {
  PyObject* value;
  PyObject* made;
  const Open* outer;
};

// What is made of a list or dict that is reached again from its own items, or an empty reference for any other.
Ref made_of(PyObject* value, const Open* open) {
  for (; open != nullptr; open = open->outer) {
    if (open->value == value) return Ref::share(open->made);
  }
  return Ref();
}

Ref walk(PyObject* value, NestVisitor& visitor, const Open* outer);

Ref walk_tuple(PyObject* value, NestVisitor& visitor, const Open* outer) {
  const Py_ssize_t size = PyTuple_GET_SIZE(value);
  Ref out = checked(PyTuple_New(size));
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyTuple_SET_ITEM(out.get(), i, walk(PyTuple_GET_ITEM(value, i), visitor, outer).release());
  }
  return out;
}

// Lists and dicts can change while an item is walked, because that may run Python code of the user's.
Ref walk_list(PyObject* value, NestVisitor& visitor, const Open* outer) {
  if (Ref made = made_of(value, outer)) return made;
  Ref out = checked(PyList_New(0));
  const Open open{value, out.get(), outer};
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(value); ++i) {
    const Ref item = Ref::share(PyList_GET_ITEM(value, i));
    checked(PyList_Append(out.get(), walk(item.get(), visitor, &open).get()));
  }
  return out;
}

Ref walk_dict(PyObject* value, NestVisitor& visitor, const Open* outer) {
  if (Ref made = made_of(value, outer)) return made;
  Ref out = checked(PyDict_Copy(value));
  const Open open{value, out.get(), outer};
  const Ref items = checked(PyDict_Items(out.get()));
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.get()); ++i) {
    PyObject* item = PyList_GET_ITEM(items.get(), i);
    const Ref walked = walk(PyTuple_GET_ITEM(item, 1), visitor, &open);
    checked(PyDict_SetItem(out.get(), PyTuple_GET_ITEM(item, 0), walked.get()));
  }
  return out;
}

Ref walk(PyObject* value, NestVisitor& visitor, const Open* outer) {
  if (is_atom(value)) return Ref::share(value);
  if (Ref replaced = visitor.leaf(value)) return replaced;
  const RecursionGuard guard(" while walking a nested value");
  if (PyTuple_CheckExact(value)) return walk_tuple(value, visitor, outer);
  if (PyList_CheckExact(value)) return walk_list(value, visitor, outer);
  if (PyDict_CheckExact(value)) return walk_dict(value, visitor, outer);
  return visitor.uncommon(value);
}

}  // namespace

NestVisitor::~NestVisitor() {
  if (self_) PyCapsule_SetContext(self_.get(), nullptr);  // Python code may have kept the walk
}

Ref NestVisitor::uncommon(PyObject* value) {
  if (!walk_) {
    self_ = checked(PyCapsule_New(&walk_method, nullptr, nullptr));
    checked(PyCapsule_SetContext(self_.get(), this));
    walk_ = checked(PyCFunction_New(&walk_method, self_.get()));
  }
  return checked(PyObject_CallFunctionObjArgs(rebuild_, value, walk_.get(), nullptr));
}

Ref walk_nest(PyObject* value, NestVisitor& visitor) { return walk(value, visitor, nullptr); }

}  // namespace nntap
