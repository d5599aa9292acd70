#pragma once

// Walking what a module takes in and gives back: tensors inside tuples, lists, dicts and other containers.

#include "python/python.hpp"

namespace nntap {

/// What a walk does with what it finds. Both functions throw PythonErrorSet.
class NestVisitor {
 public:
  virtual ~NestVisitor() = default;

  /// A new value for a leaf this visitor replaces, or an empty reference for anything else.
  virtual Ref leaf(PyObject* value) = 0;

  /// Walks a container of a less common type (namedtuple, dataclass, ModelOutput, set...) in Python, and returns any
  /// other object as it is.
  virtual Ref uncommon(PyObject* value) = 0;
};

/// The value with each leaf replaced. Containers are new objects of the same type, also one that holds itself, as far
/// as no uncommon one lies in between; the rest is kept by reference.
Ref walk_nest(PyObject* value, NestVisitor& visitor);

}  // namespace nntap
