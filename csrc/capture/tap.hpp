#pragma once

#include "python/python.hpp"

namespace nntap {

/// Makes the Tap type. Called once.
void init_tap_type();

/// Records from now on what the module at each path gives back, behind all its own hooks. Throws, and then leaves no
/// tap.
///
/// A tap is put where `Module.__call__` looks for a compiled call, and calls what stood there before, or else the
/// module's `_call_impl`. A forward hook would take the module off torch's fast path, at ten times the cost; see
/// `Module._call_impl`. One tap a module serves every recorder. Copies and pickles of a module have none; what shares
/// its `__dict__` entries without a copy runs the module itself.
void tap_modules(PyObject* modules, PyObject* recorder);

/// Takes the recorder's taps off, in whatever order captures end. Returns of how many modules something else stood in
/// the tap's place.
Py_ssize_t untap_modules(PyObject* modules, PyObject* recorder);

}  // namespace nntap
