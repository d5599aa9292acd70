#include "device/cuda/quarantine.hpp"

#include <algorithm>

#include "device/cuda/check.hpp"
#include "device/cuda/edges.hpp"

namespace nntap::cuda {

void Quarantine::watch(const Driver& driver, Context context, Stream stream, std::shared_ptr<EventPool> events,
                       bool side) {
  std::lock_guard<std::mutex> lock(mutex_);
  const bool known = std::any_of(streams_.begin(), streams_.end(), [&](const Watched& watched) {
    return watched.context == context && watched.stream == stream;
  });
  if (!known) streams_.push_back({&driver, context, stream, std::move(events), side});
}

void Quarantine::settle() {
  std::lock_guard<std::mutex> lock(mutex_);
  take_returned();
  while (!batches_.empty() && passed(batches_.front())) {
    for (Block& block : batches_.front().blocks) block.recycle();
    batches_.pop_front();
  }
}

void Quarantine::wait() {
  std::vector<Mark> marks;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    take_returned();
    for (const Batch& batch : batches_) marks.insert(marks.end(), batch.marks.begin(), batch.marks.end());
  }
  for (const Mark& mark : marks) {
    const ContextScope scope(*mark.driver, mark.context);
    check(*mark.driver, "cuEventSynchronize", mark.driver->event_synchronize(mark.event.get()));
  }
  settle();
}

void Quarantine::take_returned() {
  Batch returned{pool_.take_returned(), {}};  // goes back to the pool where it is not kept here
  if (returned.blocks.empty() || any_captures()) return;
  returned.marks = mark_streams();
  batches_.push_back(std::move(returned));
}

// On a stream that is being captured an event would become a part of the user's graph, and mark nothing.
bool Quarantine::any_captures() const {
  return std::any_of(streams_.begin(), streams_.end(), [](const Watched& watched) {
    const ContextScope scope(*watched.driver, watched.context);
    return is_captured(*watched.driver, watched.stream);
  });
}

std::vector<Quarantine::Mark> Quarantine::mark_streams() {
  std::vector<Mark> marks;
  for (const Watched& watched : streams_) {
    if (!keeps(watched.side ? Edge::quarantine_records_side : Edge::quarantine_records_compute)) continue;
    const ContextScope scope(*watched.driver, watched.context);
    auto event = watched.events->take();
    check(*watched.driver, "cuEventRecord", watched.driver->event_record(event.get(), watched.stream));
    marks.push_back({watched.driver, watched.context, std::move(event)});
  }
  return marks;
}

bool Quarantine::passed(const Batch& batch) const {
  if (!keeps(Edge::quarantine_waits)) return true;
  return std::all_of(batch.marks.begin(), batch.marks.end(), [](const Mark& mark) {
    const ContextScope scope(*mark.driver, mark.context);
    const Result result = mark.driver->event_query(mark.event.get());
    if (result != kNotReady) check(*mark.driver, "cuEventQuery", result);
    return result == kSuccess;
  });
}

void Quarantine::forget(Context context) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto belongs = [&](const auto& each) { return each.context == context; };
  streams_.erase(std::remove_if(streams_.begin(), streams_.end(), belongs), streams_.end());
  for (Batch& batch : batches_) {
    batch.marks.erase(std::remove_if(batch.marks.begin(), batch.marks.end(), belongs), batch.marks.end());
  }
}

}  // namespace nntap::cuda
