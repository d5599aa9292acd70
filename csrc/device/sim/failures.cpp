#include "device/sim/failures.hpp"

namespace nntap::sim {
namespace {

// What still answers when the device is lost, as with CUDA's sticky errors.
bool needs_device(Entry entry) {
  switch (entry) {
    case Entry::init:
    case Entry::driver_version:
    case Entry::error_name:
    case Entry::device_count:
    case Entry::device_get:
    case Entry::device_name:
    case Entry::device_attribute:
    case Entry::primary_context_release:
    case Entry::exchange_capture_mode:
    case Entry::context_push:
    case Entry::context_pop:
      return false;
    default:
      return true;
  }
}

}  // namespace

void Failures::plan(Entry entry, std::uint64_t nth, cuda::Result result, bool for_good) {
  plans_[static_cast<std::size_t>(entry)].push_back({calls(entry) + nth, result, for_good});
}

std::optional<cuda::Result> Failures::next(Entry entry) {
  const std::uint64_t call = ++calls_[static_cast<std::size_t>(entry)];
  for (const Plan& plan : plans_[static_cast<std::size_t>(entry)]) {
    if (plan.call != call) continue;
    if (plan.for_good) lost_ = plan.result;
    return plan.result;
  }
  if (lost_ && needs_device(entry)) return lost_;
  return std::nullopt;
}

}  // namespace nntap::sim
