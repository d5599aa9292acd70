#pragma once

#include "python/python.hpp"

namespace nntap {

/// The one place where C++ exceptions become Python errors: call it in a catch block, then return NULL or -1.
void set_python_error() noexcept;

/// The reference, or PythonErrorSet if the call that made it failed.
Ref checked(PyObject* result);
void checked(int result);

Ref attribute(PyObject* owner, PyObject* name);
Ref dict_of(PyObject* owner);             // its __dict__
Ref item(PyObject* dict, PyObject* key);  // empty where there is none
bool is_true(PyObject* value);
Py_ssize_t as_number(PyObject* value);

/// An owned reference to the one string of this text.
PyObject* interned(const char* text);

/// Raises RecursionError where recursion is too deep, as Python does for its own.
class RecursionGuard {
 public:
  explicit RecursionGuard(const char* where) { checked(Py_EnterRecursiveCall(where) ? -1 : 0); }
  RecursionGuard(const RecursionGuard&) = delete;
  RecursionGuard& operator=(const RecursionGuard&) = delete;
  ~RecursionGuard() { Py_LeaveRecursiveCall(); }
};

/// Sets the error that is on its way aside, for a scope in which Python code may run.
class ErrorSetAside {
 public:
  ErrorSetAside() { PyErr_Fetch(&type_, &value_, &traceback_); }
  ErrorSetAside(const ErrorSetAside&) = delete;
  ErrorSetAside& operator=(const ErrorSetAside&) = delete;
  ~ErrorSetAside() { PyErr_Restore(type_, value_, traceback_); }

 private:
  PyObject *type_, *value_, *traceback_;
};

/// What a function of Python's C interface returns: the body's result, or NULL with the error set.
template <typename Body>
PyObject* guarded(Body body) noexcept {
  try {
    return body();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

/// Gives the core the Python classes of HostMemoryError and CudaError. Called once, by the module.
void set_error_classes(PyObject* host_memory_error, PyObject* cuda_error) noexcept;

}  // namespace nntap
