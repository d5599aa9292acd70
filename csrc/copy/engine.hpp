#pragma once

// The way of one tensor: plan, share or place, copy. Knows no Python, no torch and no CUDA.

#include <cstdint>
#include <memory>

#include "copy/record.hpp"
#include "copy/share_table.hpp"
#include "copy/tensor_view.hpp"
#include "device/device.hpp"

namespace nntap {

/// What one recorder's copies came to.
struct CopyStats {
  std::uint64_t records = 0;         ///< tensors recorded through the engine, shared ones included
  std::uint64_t bytes_recorded = 0;  ///< their bytes, in the record's type
  std::uint64_t bytes_moved = 0;     ///< bytes written by copies
  std::uint64_t shared = 0;          ///< tensors that became an earlier record
  std::uint64_t bytes_shared = 0;
  std::uint64_t timed_bytes = 0;  ///< bytes of the copies that `copy_ns` counts: those large enough to time
  std::uint64_t copy_ns = 0;
};

/// Whether the engine can take a tensor of this device and these types.
bool can_snapshot(const TensorView& source, DLDataType out);

/// One snapshot: find_shared(), or place(), copy() and commit(). Only copy() may run without the caller's lock (the
/// GIL), which guards the table and the statistics.
class Snapshot {
 public:
  /// `source` must satisfy can_snapshot() and stay alive until copy() has returned.
  Snapshot(const TensorView& source, DLDataType out);

  std::size_t bytes() const { return record_->nbytes; }

  /// The earlier record that already holds these bytes, or null.
  std::shared_ptr<Record> find_shared(const ShareTable& table, CopyStats& stats) const;

  /// Takes memory for the record. False when the pool has none; may be called again.
  bool place();

  /// Copies into the memory that place() took.
  void copy();

  /// Counts the copy and makes it known to later ones.
  std::shared_ptr<Record> commit(ShareTable& table, CopyStats& stats);

 private:
  const Device* device_;
  GatherPlan plan_;
  std::shared_ptr<Record> record_;
  std::uint64_t copy_ns_ = 0;
};

}  // namespace nntap
