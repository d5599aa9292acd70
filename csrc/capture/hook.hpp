#pragma once

#include "capture/python.hpp"
#include "capture/recorder.hpp"

namespace nntap {

/// Makes the Hook type and adds it to the module. Called once.
void init_hook_type(PyObject* module);

/// A callable for torch's forward hooks with or without kwargs (output), or forward pre-hooks with kwargs (inputs),
/// called through vectorcall. Holds the recorder. Always returns None, so the model goes on with its own value. Where
/// the recorder pairs inputs with outputs, both hooks must be with kwargs: the dictionary of a call is one object.
/// Copies and pickles of a hook (a model copied while it is captured) record nothing. Throws.
Ref make_hook(PyObject* recorder, Py_ssize_t path, Slot slot);

}  // namespace nntap
