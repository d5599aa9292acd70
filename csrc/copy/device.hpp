#pragma once

#include <chrono>
#include <memory>

#include "copy/layout.hpp"
#include "copy/record.hpp"
#include "copy/tensor_view.hpp"

namespace nntap {

class SynchronousDevice;
class AsynchronousDevice;

/// What the engine asks of a kind of device. Each is of one of the two kinds below.
class Device {
 public:
  virtual ~Device() = default;

  virtual const char* name() const = 0;

  /// Whether a tensor with that memory is this device's.
  virtual bool owns(const TensorView& source) const = 0;

  /// Whether elements of one type can become the other.
  virtual bool can_cast(DLDataType from, DLDataType to) const = 0;

  virtual const SynchronousDevice* synchronous() const { return nullptr; }
  virtual const AsynchronousDevice* asynchronous() const { return nullptr; }
};

/// A copy is complete when copy() returns.
class SynchronousDevice : public Device {
 public:
  const SynchronousDevice* synchronous() const final { return this; }

  /// Copies the source, element by element in the plan's order, into the record's block, cast to its type.
  virtual void copy(const TensorView& source, const GatherPlan& plan, Record& record) const = 0;

  /// Whether copy() would leave the record as it is.
  virtual bool holds(const Record& record, const TensorView& source, const GatherPlan& plan) const = 0;
};

/// Copies that are given to an asynchronous device together. Of one thread; what was not submitted is forgotten with
/// it.
class CopyQueue {
 public:
  virtual ~CopyQueue() = default;

  /// Queues a copy of the record's source to the host or, with `on_device`, to its own device, in the order of
  /// torch's current stream. The source must live until submit(), or as long as the queue. Returns null, or why torch
  /// has to do it. Throws CudaError where recording must not go on.
  virtual const char* enqueue(std::shared_ptr<Record> record, const GatherPlan& plan, bool on_device) = 0;

  /// Gives all to the device, in order. False when host memory ran out before the end; what is left stays. Throws
  /// CudaError, and must not be called again then.
  virtual bool submit() = 0;

  /// Bytes of the first record that is left; 0: there is none.
  virtual std::size_t bytes_wanted() const = 0;
};

/// Copies are collected in a queue, then given to the device together, and land some time later.
class AsynchronousDevice : public Device {
 public:
  const AsynchronousDevice* asynchronous() const final { return this; }

  virtual std::unique_ptr<CopyQueue> make_queue() const = 0;

  /// Whether the limits leave host memory for that many bytes, were no record there.
  virtual bool can_fit(std::size_t bytes) const = 0;

  /// Bytes of host memory that all records hold.
  virtual std::size_t host_bytes_in_use() const = 0;

  /// Whether copies under way will make host memory free on their own, whoever drops records or not.
  virtual bool frees_memory() const = 0;

  /// Waits until memory may be there again, or `patience` is over. The caller must not hold the GIL.
  virtual void wait_for_memory(std::chrono::milliseconds patience) const = 0;

  /// Starts the copies that are still collected for a larger one. Throws CudaError.
  virtual void flush() const = 0;
};

}  // namespace nntap
