#pragma once

// The way of one tensor: plan, share or place, copy. Knows no Python, no torch and no CUDA.

#include <cstdint>
#include <memory>

#include "copy/copy_stats.hpp"
#include "copy/device.hpp"
#include "copy/record.hpp"
#include "copy/share_table.hpp"
#include "copy/tensor_view.hpp"

namespace nntap {

/// How a tensor is recorded: what its record looks like, and the order in which its elements are read.
struct Plan {
  Layout layout;
  GatherPlan gather;
  std::size_t nbytes;

  Plan(const TensorView& source, DLDataType out);
};

/// A planned record, without memory.
std::shared_ptr<Record> make_record(const TensorView& source, DLDataType out, const Plan& plan);

/// One snapshot on a synchronous device: propose() and is(), or place(), copy() and commit(). The caller's lock (the
/// GIL) guards the table and the statistics; what takes neither may run without it.
class Snapshot {
 public:
  /// The device must own the source and can_cast(); the source and its view must live until copy() has returned.
  Snapshot(const SynchronousDevice& device, const TensorView& source, DLDataType out);

  std::size_t bytes() const { return plan_.nbytes; }

  /// An earlier record that may hold these bytes already, or null.
  std::shared_ptr<Record> propose(const ShareTable& table) const { return table.propose(source_, out_); }

  /// Whether it does.
  bool is(const Record& known) const { return device_.holds(known, source_, plan_.gather); }

  /// Takes memory for the record. False when the pool has none; may be called again.
  bool place();

  /// Copies into the memory that place() took.
  void copy();

  /// Counts the copy and makes it known to later ones.
  std::shared_ptr<Record> commit(ShareTable& table, CopyStats& stats);

 private:
  const SynchronousDevice& device_;
  const TensorView& source_;
  DLDataType out_;
  Plan plan_;
  std::shared_ptr<Record> record_;  // made by place(): a shared tensor needs none
  std::uint64_t copy_ns_ = 0;
};

}  // namespace nntap
