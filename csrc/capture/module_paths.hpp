#pragma once

#include "python/python.hpp"

namespace nntap {

/// Learns the names it looks up. Called once.
void init_module_paths();

/// `(paths, aliases)` of a torch.nn.Module: a dict from each module below it, and itself, to its path, in the order of
/// `named_modules()`; and a dict from every other path that leads to one of them to that one's own path. Throws.
Ref module_paths(PyObject* root);

}  // namespace nntap
