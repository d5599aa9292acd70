#pragma once

// nnsight 0.8's `Interleaver.handle`, through which every value of a traced model goes, three times a module.

#include "python/python.hpp"

namespace nntap {

/// Makes the Handle type and adds it to the module. Called once.
///
/// `Handle(original)` takes the place of the function `Interleaver.handle(self, provider, value)`. Where nobody waits
/// at the location it does what the original does there: it counts the visit and shows the value to the caches that
/// observe the location, their rows only. Every other visit goes to the original.
void init_handle_type(PyObject* module);

/// Whether the object is a Handle.
bool is_handle(PyObject* object);

}  // namespace nntap
