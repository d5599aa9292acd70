#pragma once

// nnsight 0.8's `Controller.__call__`, the forward of every module it has wrapped.

#include "capture/python.hpp"

namespace nntap {

/// Makes the ControllerCall type and adds it to the module. Called once.
///
/// `ControllerCall(original)` takes the place of the function `Controller.__call__(self, *args, **kwargs)`. A call
/// that no worker waits for, of a model whose interleaver has the core's `handle`, is done here as the original does
/// it: the visit of the module's input, that of its skip gate, the module's own forward, the visit of its output.
/// Every other call goes to the original.
void init_controller_call_type(PyObject* module);

}  // namespace nntap
