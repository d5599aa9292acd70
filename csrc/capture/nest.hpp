#pragma once

// Walking what a module takes in and gives back: tensors inside tuples, lists, dicts and other containers.

#include "python/python.hpp"

namespace nntap {

/// What a walk does with what it finds. Of one walk, on the stack of its thread.
class NestVisitor {
 public:
  /// `rebuild`, borrowed, is a Python callable (value, walk) -> value: it walks a container of a less common type
  /// (namedtuple, dataclass, ModelOutput, set...), and returns any other object as it is.
  explicit NestVisitor(PyObject* rebuild) : rebuild_(rebuild) {}
  NestVisitor(const NestVisitor&) = delete;
  NestVisitor& operator=(const NestVisitor&) = delete;
  virtual ~NestVisitor();

  /// A new value for a leaf this visitor replaces, or an empty reference for anything else. Throws PythonErrorSet.
  virtual Ref leaf(PyObject* value) = 0;

  /// What `rebuild` makes of the value. Throws PythonErrorSet.
  Ref uncommon(PyObject* value);

 private:
  PyObject* rebuild_;
  Ref self_;  // a capsule, for Python; made when it is needed
  Ref walk_;  // what Python calls to come back here
};

/// The value with each leaf replaced. Containers are new objects of the same type, also one that holds itself, as far
/// as no uncommon one lies in between; the rest is kept by reference.
Ref walk_nest(PyObject* value, NestVisitor& visitor);

}  // namespace nntap
