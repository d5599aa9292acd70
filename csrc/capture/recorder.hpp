#pragma once

#include <cstddef>
#include <vector>

#include "capture/tensor_recorder.hpp"
#include "capture/visits.hpp"
#include "python/python.hpp"

namespace nntap {

/// What of a module's call is recorded. The values are part of the Python interface (`nntap._core.OUTPUT`, `INPUTS`).
enum class Slot : int { kOutput = 0, kInputs = 1 };

/// What one cache records: values by path and visit. A path is a number from 0 on that the caller has checked. Every
/// use needs the GIL, which recording and reading may drop.
class Recorder {
 public:
  /// `rebuild`: see NestVisitor. With `pairs` an output belongs to the inputs of its call.
  Recorder(std::size_t paths, bool pairs, Ref rebuild, TensorOptions options);

  /// Records one value, unless it is closed. Throws. Where it pairs inputs with outputs, an output belongs to the
  /// inputs that its thread recorded last; see Call.
  void record(Py_ssize_t path, Slot slot, PyObject* value);

  /// The recorded value, or None; tensors are the same ones at every read. Throws InvalidArgument where there is no
  /// such visit.
  Ref read(Py_ssize_t path, Py_ssize_t visit, Slot slot);

  /// Records nothing more, and keeps what there is.
  void close();

  std::size_t paths() const { return paths_.size(); }
  std::size_t visits(Py_ssize_t path) const { return paths_[static_cast<std::size_t>(path)].size(); }

  /// Paths with records, by their first one.
  const std::vector<Py_ssize_t>& order() const { return order_; }

  const TensorRecorder& tensors() const { return tensors_; }

  /// For Python's garbage collector.
  int traverse(visitproc visit, void* arg) const;
  void clear();

 private:
  friend class Call;

  Visits& visits_of(Py_ssize_t path) { return paths_[static_cast<std::size_t>(path)]; }
  Ref frozen(PyObject* value);
  void store(Py_ssize_t path, std::size_t visit, Slot slot, Ref value);
  std::size_t visit_for(Py_ssize_t path, Slot slot);
  Visit& checked_visit(Py_ssize_t path, Py_ssize_t visit);

  const bool pairs_;
  bool closed_ = false;
  Ref rebuild_;
  TensorRecorder tensors_;
  std::vector<Visits> paths_;  // no reference into it is kept while a value is walked or copied
  std::vector<Py_ssize_t> order_;
};

/// One call of a module, made before the module runs: its output belongs to the inputs recorded first from here on by
/// this thread, whatever calls it makes of itself; inputs of calls that raised wait for no output. Borrows the
/// recorder.
class Call {
 public:
  Call(Recorder& recorder, Py_ssize_t path);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  ~Call();

  /// As Recorder::record. Called once.
  void record_output(PyObject* value);

 private:
  Recorder& recorder_;
  Py_ssize_t path_;
  std::size_t since_;  // visits before this one belong to other calls
};

}  // namespace nntap
