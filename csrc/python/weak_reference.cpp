#include "python/weak_reference.hpp"

namespace nntap {

Ref referent(PyObject* weak) {
  if (weak == nullptr) return {};
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* object = nullptr;
  if (PyWeakref_GetRef(weak, &object) < 0) PyErr_Clear();
  return Ref::steal(object);
#else
  PyObject* object = PyWeakref_GetObject(weak);
  return object == Py_None ? Ref() : Ref::share(object);
#endif
}

}  // namespace nntap
