#pragma once

#include "capture/python.hpp"

namespace nntap {

/// What of a module's call is recorded. The values are part of the Python interface (`nntap._core.OUTPUT`, `INPUTS`).
enum class Slot : int { kOutput = 0, kInputs = 1 };

/// Makes the Recorder type and adds it to the module. Called once.
void init_recorder_type(PyObject* module);

/// Records one value. `call` is one address for the inputs and the output of one call, so that they are paired, or null
/// where it is not known. Throws. The GIL is held on entry and on return; it may be dropped in between.
void record(PyObject* recorder, Py_ssize_t path, Slot slot, PyObject* value, const void* call);

}  // namespace nntap
