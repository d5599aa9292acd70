#include "copy/engine.hpp"

#include <chrono>

#include "copy/dtype.hpp"
#include "support/event_log.hpp"

namespace nntap {
namespace {

// Below this a clock read costs more than a part in fifty of the copy.
constexpr std::size_t kTimedBytes = std::size_t{16} << 10;

}  // namespace

void CopyStats::count_shared(const Record& record) {
  ++records;
  ++shared;
  bytes_recorded += record.nbytes;
  bytes_shared += record.nbytes;
}

void CopyStats::count_copied(const Record& record) {
  ++records;
  bytes_recorded += record.nbytes;
  bytes_moved += record.nbytes;
}

Plan plan_record(const TensorView& source, DLDataType out) {
  Plan plan{std::make_shared<Record>(), {}};
  Record& record = *plan.record;
  record.source = source;
  record.dtype = out;
  record.layout = dense_like(source.layout);
  plan.gather = plan_gather(source.layout, record.layout);
  record.nbytes = static_cast<std::size_t>(plan.gather.numel) * item_size(out);
  return plan;
}

Snapshot::Snapshot(const SynchronousDevice& device, const TensorView& source, DLDataType out)
    : device_(device), plan_(plan_record(source, out)) {}

std::shared_ptr<Record> Snapshot::find_shared(const ShareTable& table, CopyStats& stats) const {
  auto known = table.propose(plan_.record->source, plan_.record->dtype);
  if (known == nullptr || !device_.holds(*known, plan_.record->source, plan_.gather)) return nullptr;
  stats.count_shared(*known);
  return known;
}

bool Snapshot::place() {
  plan_.record->block = HostPool::instance().acquire(bytes());
  return plan_.record->block.data() != nullptr;
}

void Snapshot::copy() {
  using Clock = std::chrono::steady_clock;
  Record& record = *plan_.record;
  const LoggedScope logged("copy", bytes());
  if (bytes() < kTimedBytes) return device_.copy(record.source, plan_.gather, record);
  const auto start = Clock::now();
  device_.copy(record.source, plan_.gather, record);
  copy_ns_ =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

std::shared_ptr<Record> Snapshot::commit(ShareTable& table, CopyStats& stats) {
  stats.count_copied(*plan_.record);
  if (bytes() >= kTimedBytes) {
    stats.copy_ns += copy_ns_;
    stats.timed_bytes += bytes();
  }
  table.remember(plan_.record);
  return plan_.record;
}

}  // namespace nntap
