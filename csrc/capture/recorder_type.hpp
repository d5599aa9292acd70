#pragma once

#include "capture/recorder.hpp"
#include "python/python.hpp"

namespace nntap {

/// Makes the Recorder type and adds it to the module. Called once.
void init_recorder_type(PyObject* module);

/// The recorder in a Python object of that type, which owns it.
Recorder& recorder_of(PyObject* object);

}  // namespace nntap
