#include "device/cuda/event_pool.hpp"

#include "device/cuda/check.hpp"

namespace nntap::cuda {

std::shared_ptr<EventT> EventPool::take() {
  Event event = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      event = free_.back();
      free_.pop_back();
    } else {
      free_.reserve(++created_);
    }
  }
  if (event == nullptr) check(driver_, "cuEventCreate", driver_.event_create(&event, flags_));
  return {event, [pool = shared_from_this()](Event taken) { pool->give_back(taken); }};
}

void EventPool::give_back(Event event) noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!closed_) free_.push_back(event);
}

void EventPool::close() noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  for (Event event : free_) driver_.event_destroy(event);
  free_.clear();
}

}  // namespace nntap::cuda
