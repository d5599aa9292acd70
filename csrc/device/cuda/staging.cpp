#include "device/cuda/staging.hpp"

#include <algorithm>
#include <system_error>

#include "copy/copy_bytes.hpp"
#include "device/cuda/edges.hpp"
#include "device/cuda/lane.hpp"
#include "device/cuda/settings.hpp"
#include "support/error.hpp"
#include "support/event_log.hpp"

namespace nntap::cuda {
namespace {

// One thread copies about 10 GB/s into pageable memory; a PCIe 5 link brings five times that.
constexpr unsigned kMostThreads = 4;

void copy_out(const Staging::Work& work) {
  std::size_t bytes = 0;
  for (const Part& part : work.parts) bytes += part.bytes;
  const LoggedScope logged("copy out of staging", bytes);
  for (const Part& part : work.parts) copy_bytes(part.to, part.from, part.bytes);
}

}  // namespace

Staging& Staging::instance() {
  static auto* staging = new Staging;
  return *staging;
}

std::list<Staging::Work> Staging::make_place() {
  std::list<Work> place(1);
  std::lock_guard<std::mutex> lock(mutex_);
  start();
  return place;
}

void Staging::enqueue(std::list<Work> place) noexcept {
  Work& work = place.front();
  std::lock_guard<std::mutex> lock(mutex_);
  if (!keeps(Edge::staging_held_until_copied)) work.region.recycle();
  if (!keeps(Edge::staging_holds_records)) work.records.clear();
  queue_.splice(queue_.end(), place);
  ++pending_;
  changed_.notify_all();
}

void Staging::start() {
  const unsigned usual = std::clamp(std::thread::hardware_concurrency() / 4, 1u, kMostThreads);
  const unsigned wanted = std::max(usual, settings.copy_threads.load());
  NNTAP_CHECK(!stopping_, CudaError, "the interpreter is ending: nothing more is recorded past the pinned memory");
  threads_.reserve(wanted);
  try {
    while (threads_.size() < wanted) threads_.emplace_back([this] { this->work(); });
  } catch (const std::system_error& error) {  // no more threads to be had: fewer do, but one must
    NNTAP_CHECK(!threads_.empty(), CudaError, "no thread to be had for copies past the pinned memory: ", error.what());
  }
}

void Staging::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return !queue_.empty() || stopping_; });
    if (queue_.empty()) return;
    std::list<Work> mine;
    mine.splice(mine.end(), queue_, queue_.begin());
    Work& work = mine.front();
    lock.unlock();
    // The lane gives the transfer its end, also where the copy never lands.
    const bool over = work.lane->finish(*work.transfer, work.landed, [&] { copy_out(work); });
    if (over) {
      work.region.recycle();
    } else {
      work.region.abandon();  // the device may still write to it
    }
    mine.clear();
    lock.lock();
    --pending_;
    ++finished_;
    changed_.notify_all();
  }
}

bool Staging::busy() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return pending_ > 0;
}

void Staging::wait(std::chrono::milliseconds patience) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, patience, [&, before = finished_] { return finished_ != before || pending_ == 0; });
}

void Staging::drain() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return pending_ == 0; });
}

void Staging::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;  // from here on no thread is started
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace nntap::cuda
