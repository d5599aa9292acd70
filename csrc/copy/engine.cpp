#include "copy/engine.hpp"

#include <chrono>

#include "copy/dtype.hpp"
#include "device/registry.hpp"

namespace nntap {
namespace {

// Below this a clock read costs more than a part in fifty of the copy.
constexpr std::size_t kTimedBytes = std::size_t{16} << 10;

}  // namespace

bool can_snapshot(const TensorView& source, DLDataType out) {
  const Device* device = find_device(source.device.device_type);
  return device != nullptr && device->can_cast(source.dtype, out);
}

Snapshot::Snapshot(const TensorView& source, DLDataType out)
    : device_(find_device(source.device.device_type)), record_(std::make_shared<Record>()) {
  record_->source = source;
  record_->dtype = out;
  record_->layout = dense_like(source.layout);
  plan_ = plan_gather(source.layout, record_->layout);
  record_->nbytes = static_cast<std::size_t>(plan_.numel) * item_size(out);
}

std::shared_ptr<Record> Snapshot::find_shared(const ShareTable& table, CopyStats& stats) const {
  auto known = table.propose(record_->source, record_->dtype);
  if (known == nullptr || !device_->holds(*known, record_->source, plan_)) return nullptr;
  ++stats.records;
  ++stats.shared;
  stats.bytes_recorded += record_->nbytes;
  stats.bytes_shared += record_->nbytes;
  return known;
}

bool Snapshot::place() {
  record_->block = HostPool::instance().acquire(record_->nbytes);
  return record_->block.data() != nullptr;
}

void Snapshot::copy() {
  using Clock = std::chrono::steady_clock;
  if (record_->nbytes < kTimedBytes) return device_->gather(record_->source, plan_, *record_);
  const auto start = Clock::now();
  device_->gather(record_->source, plan_, *record_);
  copy_ns_ =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

std::shared_ptr<Record> Snapshot::commit(ShareTable& table, CopyStats& stats) {
  ++stats.records;
  stats.bytes_recorded += record_->nbytes;
  stats.bytes_moved += record_->nbytes;
  if (record_->nbytes >= kTimedBytes) {
    stats.copy_ns += copy_ns_;
    stats.timed_bytes += record_->nbytes;
  }
  table.remember(record_);
  return record_;
}

}  // namespace nntap
