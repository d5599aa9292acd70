#pragma once

// nnsight 0.8's `Controller.__call__`, the forward of every module it has wrapped.

#include "python/python.hpp"

namespace nntap {

/// Makes the ControllerCall type and adds it to the module. Called once.
///
/// `ControllerCall(original)` takes the place of the function `Controller.__call__(self, *args, **kwargs)`. A call
/// that no worker waits for, of a model whose interleaver has the core's `handle`, is done here as the original does
/// it: the visit of the module's input, that of its skip gate, the module's own forward, the visit of its output.
/// Every other call goes to the original.
void init_controller_call_type(PyObject* module);

/// From now on until `end_quiet_run`, or until it is begun anew, calls of modules whose trace is run by this
/// interleaver do no more than show values to the observers that it has now, whole: for a run of one invoke whose
/// workers have all come to their end.
void begin_quiet_run(PyObject* interleaver);
void end_quiet_run(PyObject* interleaver);

}  // namespace nntap
