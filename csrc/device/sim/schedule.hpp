#pragma once

// Which work of which stream runs when: any order that CUDA allows, chosen by a seed. Deterministic when one thread
// drives it.

#include <functional>
#include <map>
#include <memory>

#include "device/sim/operation.hpp"

namespace nntap::sim {

/// How much runs by itself at a driver call.
enum class Pace {
  kAny,      ///< one of the next four, drawn from the seed
  kNever,    ///< nothing, until somebody waits for it
  kAlways,   ///< all that is ready
  kTrickle,  ///< now and then a step
  kFits,     ///< nothing for long, then much at once
  kTimed,    ///< what is over in virtual time
};

/// Queues of operations, one for each stream. Guarded by the simulator's mutex.
class Schedule {
 public:
  Schedule(std::uint64_t seed, Pace pace);

  Random& random() { return random_; }
  Pace pace() const { return pace_; }

  QueueId add_queue();
  void enqueue(QueueId queue, std::unique_ptr<Operation> operation);

  /// Nothing more will be enqueued: what is in it still runs.
  void retire(QueueId queue);

  /// Lets some ready operations run, as the pace has it. `now`: the virtual time of the calling thread.
  void breathe(Time now);

  /// One step of a ready operation, whichever; false when none is ready.
  bool step();

  /// Runs what must run, and as the pace has it some more, until the mark is done or the queue is empty. False when
  /// that cannot be: what it needs is held or gone.
  bool finish(const Mark& mark);
  bool finish(QueueId queue);

  /// As finish(), and nothing that need not run.
  bool finish_alone(QueueId queue);

  /// While held, no copy lands.
  void hold_copies(bool held) { copies_held_ = held; }

  /// Drops everything: it will never run.
  void abandon();

  std::size_t pending() const;

  /// Whether some operation has still to write into [begin, begin + bytes).
  bool will_write(const void* begin, std::size_t bytes) const;

 private:
  struct Queue {
    std::deque<std::unique_ptr<Operation>> operations;
    std::uint64_t weight = 1;  // how often it is chosen; 0: only when somebody waits
    bool retired = false;
  };
  using Queues = std::map<QueueId, Queue>;

  bool is_ready(const Queue& queue) const;
  Queues::iterator unblocking(QueueId queue);
  bool finish(QueueId queue, bool more, const std::function<bool()>& done);
  bool step_weighted();
  bool step_due(Time now);
  void advance(Queues::iterator queue);

  Random random_;
  Pace pace_;
  std::uint64_t calls_per_step_;  // of a trickle
  bool copies_held_ = false;
  Queues queues_;
  QueueId next_ = 1;
};

}  // namespace nntap::sim
