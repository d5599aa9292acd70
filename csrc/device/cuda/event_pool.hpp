#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "device/cuda/driver.hpp"

namespace nntap::cuda {

/// Events of one context, without timing, used again. Events go back by themselves, on any thread. Whoever waits for a
/// `blocking` one sleeps instead of asking for it again and again.
class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  explicit EventPool(const Driver& driver, bool blocking = false)
      : driver_(driver), flags_(kEventDisableTiming | (blocking ? kEventBlockingSync : 0)) {}

  /// An event of its own. The context must be current. Throws CudaError.
  std::shared_ptr<EventT> take();

  /// Destroys the free events; those that come back later end with the context. The context must be current.
  void close() noexcept;

 private:
  void give_back(Event event) noexcept;

  const Driver& driver_;
  const unsigned flags_;
  std::mutex mutex_;
  std::vector<Event> free_;  // has room for all
  std::size_t created_ = 0;
  bool closed_ = false;
};

}  // namespace nntap::cuda
