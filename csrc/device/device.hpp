#pragma once

#include "copy/layout.hpp"
#include "copy/record.hpp"
#include "copy/tensor_view.hpp"

namespace nntap {

/// What the engine asks of a kind of device. Implementations hold no reference to the source after a call returns,
/// unless they have ordered its reuse on the device's own stream.
class Device {
 public:
  virtual ~Device() = default;

  virtual DLDeviceType type() const = 0;
  virtual const char* name() const = 0;

  /// Whether gather() can turn elements of one type into the other; equal types always work.
  virtual bool can_cast(DLDataType from, DLDataType to) const = 0;

  /// Copies the source, element by element in the plan's order, into the record's block, cast to its type.
  virtual void gather(const TensorView& source, const GatherPlan& plan, Record& record) const = 0;

  /// Whether gather() would leave the record as it is.
  virtual bool holds(const Record& record, const TensorView& source, const GatherPlan& plan) const = 0;
};

}  // namespace nntap
