#pragma once

// Host memory that came back while a device may still be using it: a copy of ours that has not landed, or the user's
// own asynchronous copy to a device from a record that is pinned.

#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "copy/host_pool.hpp"
#include "device/cuda/event_pool.hpp"

namespace nntap::cuda {

/// Keeps what came back to a pool until everything that was enqueued before, on the streams it knows, is done. The
/// streams are those that something was recorded on, and the side streams: a copy that a user makes on a stream where
/// nothing is ever recorded is not seen. One mutex, under which only the driver, the pool and event pools are called.
class Quarantine {
 public:
  explicit Quarantine(HostPool& pool) : pool_(pool) {}

  /// From now on waits for that stream too. Known streams are not added again.
  void watch(const Driver& driver, Context context, Stream stream, std::shared_ptr<EventPool> events, bool side);

  /// Looks at what came back, and recycles what is no longer used. Never waits. Throws CudaError.
  void settle();

  /// The same, and waits for the devices that may be at it. The caller must not hold the GIL. Throws CudaError.
  void wait();

  /// Forgets the context's streams, which must have nothing left to do.
  void forget(Context context);

 private:
  struct Watched {
    const Driver* driver;
    Context context;
    Stream stream;
    std::shared_ptr<EventPool> events;
    bool side;
  };
  struct Mark {
    const Driver* driver;
    Context context;
    std::shared_ptr<EventT> event;
  };
  struct Batch {
    std::vector<Block> blocks;
    std::vector<Mark> marks;
  };

  // With mutex_ held.
  void take_returned();
  bool any_captures() const;
  std::vector<Mark> mark_streams();
  bool passed(const Batch& batch) const;

  HostPool& pool_;
  std::mutex mutex_;
  std::vector<Watched> streams_;
  std::deque<Batch> batches_;  // oldest first
};

}  // namespace nntap::cuda
