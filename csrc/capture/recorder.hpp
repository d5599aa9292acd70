#pragma once

#include <cstddef>

#include "python/python.hpp"

namespace nntap {

/// What of a module's call is recorded. The values are part of the Python interface (`nntap._core.OUTPUT`, `INPUTS`).
enum class Slot : int { kOutput = 0, kInputs = 1 };

/// Makes the Recorder type and adds it to the module. Called once.
void init_recorder_type(PyObject* module);

/// Records one value. Throws. The GIL is held on entry and on return; it may be dropped in between. Where the recorder
/// pairs inputs with outputs, an output belongs to the inputs that its thread recorded last; see Call.
void record(PyObject* recorder, Py_ssize_t path, Slot slot, PyObject* value);

/// One call of a module, made before the module runs: its output belongs to the inputs recorded first from here on by
/// this thread, whatever calls it makes of itself; inputs of calls that raised wait for no output. Borrows the
/// recorder.
class Call {
 public:
  Call(PyObject* recorder, Py_ssize_t path);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call();

  /// As `record`. Called once.
  void record_output(PyObject* value);

 private:
  PyObject* recorder_;
  Py_ssize_t path_;
  std::size_t since_;  // visits before this one belong to other calls
};

}  // namespace nntap
