#pragma once

// Which record holds what lay at an address, so that a tensor handed on unchanged is stored once.

#include <dlpack/dlpack.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "copy/record.hpp"
#include "copy/tensor_view.hpp"

namespace nntap {

/// One table a recorder, cleared when its run ends. It only proposes: the address may hold another tensor by now, or
/// the same one edited in place, so the device compares the bytes before a record is shared. That also finds edits
/// that no version counter sees (`.data`, numpy and DLPack aliases). Guarded by the recorder's lock, the GIL.
class ShareTable {
 public:
  /// The record last made of a tensor at this address with this layout and these types, or null.
  std::shared_ptr<Record> propose(const TensorView& source, DLDataType out) const;
  void remember(const std::shared_ptr<Record>& record);
  void reserve(std::size_t tensors) { records_.reserve(tensors); }
  void clear() { records_.clear(); }

 private:
  // By a hash of all that is compared: a slice begins where the whole does. Where two hashes meet, the newer stays.
  std::unordered_map<std::uint64_t, std::shared_ptr<Record>> records_;
};

}  // namespace nntap
