#include "capture/module_paths.hpp"

#include "python/python_error.hpp"

namespace nntap {
namespace {

PyObject* modules_name = nullptr;  // owned for the life of the process

// A ScriptModule does not keep them in its dict.
Ref modules_of(PyObject* module) {
  Ref modules = item(dict_of(module).get(), modules_name);
  return modules ? modules : attribute(module, modules_name);
}

// Every step of a capture's set-up counts when the model is small: in Python this walk was half of it.
class Walk {
 public:
  Ref from(PyObject* root) {
    const Ref no_prefix = checked(PyUnicode_New(0, 0));
    checked(PyDict_SetItem(paths_.get(), root, no_prefix.get()));
    below(modules_of(root).get(), no_prefix.get());
    return checked(PyTuple_Pack(2, paths_.get(), aliases_.get()));
  }

 private:
  void below(PyObject* modules, PyObject* prefix) {
    const RecursionGuard guard(" while walking the modules of a model");
    if (PyDict_CheckExact(modules)) {
      below_plain(modules, prefix);
    } else {
      below_mapping(modules, prefix);
    }
  }

  // A module's own hash may run and change the dict: PyDict_Next allows it, and what it lends is held.
  void below_plain(PyObject* modules, PyObject* prefix) {
    PyObject *name, *child;
    for (Py_ssize_t position = 0; PyDict_Next(modules, &position, &name, &child);) {
      if (child != Py_None) add(Ref::share(name).get(), Ref::share(child).get(), prefix);
    }
  }

  // OrderedDict, whose order is its own, and what a ScriptModule has.
  void below_mapping(PyObject* modules, PyObject* prefix) {
    const Ref items = checked(PyMapping_Items(modules));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.get()); ++i) {
      PyObject *name, *child;
      checked(PyArg_ParseTuple(PyList_GET_ITEM(items.get(), i), "OO", &name, &child) ? 0 : -1);
      if (child != Py_None) add(name, child, prefix);
    }
  }

  void add(PyObject* name, PyObject* child, PyObject* prefix) {
    const Ref path = checked(PyUnicode_Concat(prefix, name));
    PyObject* first = PyDict_SetDefault(paths_.get(), child, path.get());  // lent by the dict
    checked(first == nullptr ? -1 : 0);
    if (first != path.get()) {
      checked(PyDict_SetItem(aliases_.get(), path.get(), first));
      return;
    }
    const Ref modules = modules_of(child);
    if (is_true(modules.get())) below(modules.get(), checked(PyUnicode_Concat(path.get(), dot_.get())).get());
  }

  Ref paths_ = checked(PyDict_New());
  Ref aliases_ = checked(PyDict_New());
  Ref dot_ = checked(PyUnicode_FromString("."));
};

}  // namespace

void init_module_paths() { modules_name = interned("_modules"); }

Ref module_paths(PyObject* root) { return Walk().from(root); }

}  // namespace nntap
