#pragma once

#include "python/python.hpp"

namespace nntap {

/// What a weak reference refers to, or empty where that is gone, and where there is no weak reference.
Ref referent(PyObject* weak);

}  // namespace nntap
