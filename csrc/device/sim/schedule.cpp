#include "device/sim/schedule.hpp"

#include <utility>

namespace nntap::sim {
namespace {

constexpr std::uint64_t kWeights[] = {0, 1, 4, 16};
constexpr std::uint64_t kCallsPerStep[] = {1, 2, 4, 8, 16};

Pace drawn(Pace pace, Random& random) {
  constexpr Pace kDrawn[] = {Pace::kNever, Pace::kAlways, Pace::kTrickle, Pace::kFits};
  return pace == Pace::kAny ? kDrawn[random.below(std::size(kDrawn))] : pace;
}

}  // namespace

Schedule::Schedule(std::uint64_t seed, Pace pace)
    : random_(seed),
      pace_(drawn(pace, random_)),
      calls_per_step_(kCallsPerStep[random_.below(std::size(kCallsPerStep))]) {}

QueueId Schedule::add_queue() {
  queues_[next_].weight = kWeights[random_.below(std::size(kWeights))];
  return next_++;
}

void Schedule::enqueue(QueueId queue, std::unique_ptr<Operation> operation) {
  queues_.at(queue).operations.push_back(std::move(operation));
}

void Schedule::retire(QueueId queue) {
  const auto at = queues_.find(queue);
  at->second.retired = true;
  if (at->second.operations.empty()) queues_.erase(at);
}

bool Schedule::is_ready(const Queue& queue) const {
  if (queue.operations.empty()) return false;
  const Operation& head = *queue.operations.front();
  if (copies_held_ && head.target() != nullptr) return false;
  return head.waits_for() == nullptr || head.waits_for()->done;
}

void Schedule::advance(Queues::iterator queue) {
  auto& operations = queue->second.operations;
  if (!operations.front()->advance()) return;
  operations.pop_front();
  if (operations.empty() && queue->second.retired) queues_.erase(queue);
}

bool Schedule::step() {
  std::uint64_t ready = 0;
  for (const auto& [id, queue] : queues_) ready += is_ready(queue) ? 1 : 0;
  if (ready == 0) return false;
  std::uint64_t chosen = random_.below(ready);
  for (auto at = queues_.begin();; ++at) {
    if (!is_ready(at->second) || chosen-- > 0) continue;
    advance(at);
    return true;
  }
}

bool Schedule::step_weighted() {
  std::uint64_t sum = 0;
  for (const auto& [id, queue] : queues_) sum += is_ready(queue) ? queue.weight : 0;
  if (sum == 0) return false;
  std::uint64_t chosen = random_.below(sum);
  for (auto at = queues_.begin();; ++at) {
    if (!is_ready(at->second)) continue;
    if (chosen < at->second.weight) {
      advance(at);
      return true;
    }
    chosen -= at->second.weight;
  }
}

bool Schedule::step_due(Time now) {
  for (auto at = queues_.begin(); at != queues_.end(); ++at) {
    if (!is_ready(at->second) || at->second.operations.front()->end > now) continue;
    advance(at);
    return true;
  }
  return false;
}

void Schedule::breathe(Time now) {
  std::uint64_t steps = 0;
  switch (pace_) {
    case Pace::kAny:
    case Pace::kNever:
      return;
    case Pace::kAlways:
      while (step()) continue;
      return;
    case Pace::kTimed:
      while (step_due(now)) continue;
      return;
    case Pace::kTrickle:
      steps = random_.one_in(2 * calls_per_step_) ? 1 : 0;  // each call asks twice
      break;
    case Pace::kFits:
      steps = random_.one_in(12) ? random_.below(64) : 0;
      break;
  }
  while (steps-- > 0 && step_weighted()) continue;
}

// The queue whose head must run before anything else of `queue` can, itself included.
Schedule::Queues::iterator Schedule::unblocking(QueueId queue) {
  for (;;) {
    const auto at = queues_.find(queue);
    if (at == queues_.end() || at->second.operations.empty()) return queues_.end();
    if (is_ready(at->second)) return at;
    const Mark* awaited = at->second.operations.front()->waits_for();
    if (awaited == nullptr) return queues_.end();
    queue = awaited->queue;
  }
}

bool Schedule::finish(QueueId queue, bool more, const std::function<bool()>& done) {
  while (!done()) {
    if (more && random_.one_in(4)) step_weighted();
    if (done()) break;
    const auto next = unblocking(queue);
    if (next == queues_.end()) return false;
    advance(next);
  }
  return true;
}

bool Schedule::finish(const Mark& mark) {
  const bool more = pace_ == Pace::kTrickle || pace_ == Pace::kFits;
  return finish(mark.queue, more, [&] { return mark.done; });
}

bool Schedule::finish(QueueId queue) {
  const bool more = pace_ == Pace::kTrickle || pace_ == Pace::kFits;
  return finish(queue, more, [&] { return queues_.at(queue).operations.empty(); });
}

bool Schedule::finish_alone(QueueId queue) {
  return finish(queue, false, [&] { return queues_.at(queue).operations.empty(); });
}

void Schedule::abandon() {
  for (auto at = queues_.begin(); at != queues_.end();) {
    at->second.operations.clear();
    at = at->second.retired ? queues_.erase(at) : std::next(at);
  }
}

std::size_t Schedule::pending() const {
  std::size_t count = 0;
  for (const auto& [id, queue] : queues_) count += queue.operations.size();
  return count;
}

bool Schedule::will_write(const void* begin, std::size_t bytes) const {
  const auto* from = static_cast<const char*>(begin);
  for (const auto& [id, queue] : queues_) {
    for (const auto& operation : queue.operations) {
      const char* target = operation->target();
      if (target != nullptr && target < from + bytes && from < target + operation->target_bytes()) return true;
    }
  }
  return false;
}

}  // namespace nntap::sim
