#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "device/cuda/driver.hpp"

namespace nntap::cuda {

/// Events of one context, without timing, used again. Events go back by themselves, on any thread.
class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  explicit EventPool(const Driver& driver) : driver_(driver) {}

  /// An event of its own. The context must be current. Throws CudaError.
  std::shared_ptr<EventT> take();

  /// Destroys the free events; those that come back later end with the context. The context must be current.
  void close() noexcept;

 private:
  void give_back(Event event) noexcept;

  const Driver& driver_;
  std::mutex mutex_;
  std::vector<Event> free_;  // has room for all
  std::size_t created_ = 0;
  bool closed_ = false;
};

}  // namespace nntap::cuda
