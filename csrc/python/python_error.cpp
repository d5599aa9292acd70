#include "python/python_error.hpp"

#include <new>

#include "support/error.hpp"

namespace nntap {
namespace {

// Owned for the life of the process.
PyObject* host_memory_error = nullptr;
PyObject* cuda_error = nullptr;

}  // namespace

void set_python_error() noexcept {
  try {
    throw;
  } catch (const PythonErrorSet&) {
  } catch (const HostMemoryError& error) {
    PyErr_SetString(host_memory_error != nullptr ? host_memory_error : PyExc_MemoryError, error.what());
  } catch (const CudaError& error) {
    PyErr_SetString(cuda_error != nullptr ? cuda_error : PyExc_RuntimeError, error.what());
  } catch (const InvalidArgument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_Format(PyExc_RuntimeError, "nntap: %s", error.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "nntap: unknown C++ exception");
  }
}

Ref checked(PyObject* result) {
  if (result == nullptr) throw PythonErrorSet{};
  return Ref::steal(result);
}

void checked(int result) {
  if (result < 0) throw PythonErrorSet{};
}

Ref attribute(PyObject* owner, PyObject* name) { return checked(PyObject_GetAttr(owner, name)); }

Ref dict_of(PyObject* owner) {
  Ref dict = checked(PyObject_GenericGetDict(owner, nullptr));
  NNTAP_CHECK(PyDict_Check(dict.get()), InvalidArgument, "an object's __dict__ is no dict");
  return dict;
}

Ref item(PyObject* dict, PyObject* key) {
  PyObject* found = PyDict_GetItemWithError(dict, key);
  if (found == nullptr && PyErr_Occurred()) throw PythonErrorSet{};
  return Ref::share(found);
}

bool is_true(PyObject* value) {
  const int answer = PyObject_IsTrue(value);
  checked(answer);
  return answer != 0;
}

Py_ssize_t as_number(PyObject* value) {
  const Py_ssize_t number = PyLong_AsSsize_t(value);
  if (number == -1 && PyErr_Occurred()) throw PythonErrorSet{};
  return number;
}

PyObject* interned(const char* text) { return checked(PyUnicode_InternFromString(text)).release(); }

void set_error_classes(PyObject* host_memory, PyObject* cuda) noexcept {
  host_memory_error = Py_NewRef(host_memory);
  cuda_error = Py_NewRef(cuda);
}

}  // namespace nntap
