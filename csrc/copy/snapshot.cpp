#include "copy/snapshot.hpp"

#include <chrono>

#include "copy/dtype.hpp"
#include "support/event_log.hpp"

namespace nntap {
namespace {

// Below this a clock read costs more than a part in fifty of the copy.
constexpr std::size_t kTimedBytes = std::size_t{16} << 10;

// SIZE_MAX, which nobody has, where a tensor that repeats its elements has more bytes than can be counted.
std::size_t bytes_of(std::int64_t numel, std::size_t item) {
  std::size_t bytes;
  return __builtin_mul_overflow(static_cast<std::size_t>(numel), item, &bytes) ? SIZE_MAX : bytes;
}

}  // namespace

Plan::Plan(const TensorView& source, DLDataType out)
    : layout(dense_like(source.layout)),
      gather(plan_gather(source.layout, layout)),
      nbytes(bytes_of(gather.numel, item_size(out))) {}

std::shared_ptr<Record> make_record(const TensorView& source, DLDataType out, const Plan& plan) {
  auto record = std::make_shared<Record>();
  record->source = source;
  record->dtype = out;
  record->layout = plan.layout;
  record->nbytes = plan.nbytes;
  return record;
}

Snapshot::Snapshot(const SynchronousDevice& device, const TensorView& source, DLDataType out)
    : device_(device), source_(source), out_(out), plan_(source, out) {}

bool Snapshot::place() {
  Block block = HostPool::instance().acquire(bytes());
  if (block.data() == nullptr) return false;
  record_ = make_record(source_, out_, plan_);
  record_->block = std::move(block);
  return true;
}

void Snapshot::copy() {
  using Clock = std::chrono::steady_clock;
  const LoggedScope logged("copy", bytes());
  if (bytes() < kTimedBytes) return device_.copy(source_, plan_.gather, *record_);
  const auto start = Clock::now();
  device_.copy(source_, plan_.gather, *record_);
  copy_ns_ =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

std::shared_ptr<Record> Snapshot::commit(ShareTable& table, CopyStats& stats) {
  stats.count_copied(*record_);
  if (bytes() >= kTimedBytes) {
    stats.copy_ns += copy_ns_;
    stats.timed_bytes += bytes();
  }
  table.remember(record_);
  return record_;
}

}  // namespace nntap
