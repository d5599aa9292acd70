#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "copy/record.hpp"
#include "python/python.hpp"

namespace nntap {

/// Which record was made of a tensor object, where bytes cannot be compared at once: a device is still writing them. A
/// record is shared while it is provably the same tensor: the object is alive, at the same address with the same
/// layout, and torch's version of it has not changed. One table a recorder; every use needs the GIL.
class IdentityTable {
 public:
  /// The record of that tensor, or null.
  std::shared_ptr<Record> find(PyObject* tensor, const TensorView& source, DLDataType out) const;
  void remember(PyObject* tensor, const std::shared_ptr<Record>& record);
  void clear() { known_.clear(); }

 private:
  struct Known {
    Ref alive;  // a weak reference
    std::int64_t version;
    std::shared_ptr<Record> record;
  };
  std::unordered_map<PyObject*, Known> known_;
};

}  // namespace nntap
