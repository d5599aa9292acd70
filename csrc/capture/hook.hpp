#pragma once

#include "capture/python.hpp"
#include "capture/recorder.hpp"

namespace nntap {

/// Makes the Hook type and adds it to the module. Called once.
void init_hook_type(PyObject* module);

/// A callable for torch's register_forward_hook (output) or register_forward_pre_hook with kwargs (inputs), called
/// through vectorcall. Holds the recorder. Always returns None, so the model goes on with its own value. Throws.
Ref make_hook(PyObject* recorder, Py_ssize_t path, Slot slot);

}  // namespace nntap
