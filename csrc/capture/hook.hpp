#pragma once

#include "python/python.hpp"

namespace nntap {

/// Makes the Hook type and adds it to the module. Called once.
void init_hook_type(PyObject* module);

/// A callable for torch's forward pre-hooks with kwargs, called through vectorcall: records a module's inputs, as
/// `(args, kwargs)`. Holds the recorder. Always returns None, so the module goes on with its own inputs. Copies and
/// pickles of it (a model copied while it is captured) record nothing. Throws.
Ref make_hook(PyObject* recorder, Py_ssize_t path);

/// What `__reduce__` gives for something that copies leave out: a call of that function of nntap.hooks. Throws.
Ref copied_by(const char* function);

}  // namespace nntap
