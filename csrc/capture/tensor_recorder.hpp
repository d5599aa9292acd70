#pragma once

// The way of one tensor: shared with an earlier record, copied at once, enqueued on its device, or left to torch.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "capture/identity_table.hpp"
#include "capture/stall.hpp"
#include "copy/device.hpp"
#include "copy/share_table.hpp"
#include "copy/snapshot.hpp"
#include "python/python.hpp"

namespace nntap {

/// How every tensor of one recorder is recorded.
struct TensorOptions {
  bool has_dtype = false;
  DLDataType dtype{};       // of every record, where has_dtype
  bool has_target = false;  // else every record stays on its tensor's device
  DLDevice target{kDLCPU, 0};
  Ref slow_reason;  // a str when every tensor goes the slow way, or None
  Ref slow;         // callable (tensor) -> tensor
};

/// What one value of a module asks of asynchronous devices, until it is submitted. On the stack of the thread that
/// records.
class QueuedCopies {
 public:
  struct Copy {
    Ref tensor;
    std::shared_ptr<Record> record;
  };

  /// Those of one device.
  struct Queue {
    const AsynchronousDevice* device;
    std::unique_ptr<CopyQueue> queue;
    std::vector<Copy> copies;  // in the order of the queue
  };

  Queue& of(const AsynchronousDevice& device);
  std::vector<Queue>& all() { return queues_; }

 private:
  std::vector<Queue> queues_;
};

/// Records tensors for one recorder. Guarded by the GIL, which a copy may drop.
class TensorRecorder {
 public:
  /// `expected`: about how many tensors there will be.
  TensorRecorder(TensorOptions options, std::size_t expected);

  const TensorOptions& options() const { return options_; }

  // What it came to.
  CopyStats copies;
  StallStats stalls;
  std::map<std::string, std::uint64_t> slow_counts;  // by reason

  /// A ticket for the tensor's record, or what torch made of it. A record on an asynchronous device is there once
  /// `queued` is submitted. Throws.
  Ref record(PyObject* tensor, QueuedCopies& queued);

  /// Gives what is queued to the devices, waiting for host memory if it must. Throws.
  void submit(QueuedCopies& queued);

  /// What is queued will not be submitted: no later tensor becomes one of its records.
  void forget_queued() noexcept { handed_on_.clear(); }

  /// A ticket that is being read: a later record that shares its memory will be the same tensor.
  void keep_read(PyObject* ticket);

  /// From here on no tensor becomes an earlier record.
  void forget_tensors() noexcept;

  /// The same, and drops what it holds of Python.
  void clear() noexcept;

 private:
  Ref leave_to_torch(const char* reason, PyObject* tensor);
  Ref copy_now(const SynchronousDevice& device, const TensorView& source, DLDataType out, PyObject* tensor);
  Ref copy_later(const AsynchronousDevice& device, const TensorView& source, DLDataType out, PyObject* tensor,
                 QueuedCopies& queued);
  const char* wrong_target(const TensorView& source) const;

  TensorOptions options_;
  std::size_t copied_bytes_ = 0;   // of pageable host memory, that records of synchronous devices were given
  std::size_t landing_bytes_ = 0;  // of host memory of either kind, that those of asynchronous ones were given
  bool sharing_ = true;
  std::vector<Ref> read_;    // tickets, while a record may still be shared
  ShareTable shared_;        // on synchronous devices
  IdentityTable handed_on_;  // on asynchronous ones
};

}  // namespace nntap
