#include "device/cuda/pinned_pool.hpp"

#include <unistd.h>

#include <algorithm>

#include "copy/pages.hpp"
#include "device/cuda/check.hpp"
#include "device/cuda/settings.hpp"
#include "support/event_log.hpp"

namespace nntap::cuda {
namespace {

// One call pins at most this much: the driver holds its lock for a call, and every launch of the process waits for it.
constexpr std::size_t kPiece = std::size_t{256} << 20;
constexpr std::size_t kStagingBytes = 2 * HostPool::kSlabBytes;
constexpr std::size_t kMostAhead = std::size_t{1} << 30;

std::size_t half_of_memory() {
  const auto bytes =
      static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return std::max(HostPool::kSlabBytes, bytes / 2);
}

}  // namespace

char* PinnedSource::map(std::size_t bytes) noexcept {
  const LoggedScope logged("pin memory", bytes);
  char* base = map_pages(bytes);
  if (base == nullptr) return nullptr;
  touch_pages_in_parallel(base, bytes);  // a page that exists is registered several times faster
  std::lock_guard<std::mutex> lock(mutex_);
  if (register_slab({base, bytes}) == kSuccess) {
    slabs_.push_back({base, bytes});
    return base;
  }
  unmap_pages(base, bytes);
  return nullptr;
}

void PinnedSource::unmap(char* base, std::size_t bytes) noexcept {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto slab = std::find_if(slabs_.begin(), slabs_.end(), [=](const Slab& each) { return each.base == base; });
    if (slab != slabs_.end()) {
      unregister(*slab, bytes);
      slabs_.erase(slab);
    }
  }
  unmap_pages(base, bytes);
}

void PinnedSource::attach(const Driver& driver, Context context) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (driver_ != nullptr) return;  // for the platform's first device, and so for all
  driver_ = &driver;
  context_ = context;
  for (std::size_t i = 0; i < slabs_.size(); ++i) {
    const Result result = register_slab(slabs_[i]);
    if (result == kSuccess) continue;
    while (i-- > 0) unregister(slabs_[i], slabs_[i].bytes);
    driver_ = nullptr;
    throw_driver_error(driver, "cuMemHostRegister", result);
  }
}

void PinnedSource::detach() noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Slab& slab : slabs_) unregister(slab, slab.bytes);
  driver_ = nullptr;
}

Result PinnedSource::register_slab(const Slab& slab) {
  if (driver_ == nullptr) return kSuccess;
  Result result = driver_->context_push(context_);
  if (result != kSuccess) return result;
  std::size_t done = 0;
  for (; result == kSuccess && done < slab.bytes; done += kPiece) {
    result = driver_->host_register(slab.base + done, std::min(kPiece, slab.bytes - done), kHostRegisterPortable);
  }
  leave_context(*driver_);
  if (result != kSuccess) unregister(slab, done - kPiece);
  return result;
}

void PinnedSource::unregister(const Slab& slab, std::size_t bytes) noexcept {
  if (driver_ == nullptr) return;
  const LastScope scope(*driver_, context_);
  if (!scope.entered()) return;
  for (std::size_t done = 0; done < bytes; done += kPiece) driver_->host_unregister(slab.base + done);
}

PinnedPool& PinnedPool::instance() {
  static auto* pool = new PinnedPool;
  return *pool;
}

PinnedPool::PinnedPool() : records_(source_, true), staging_(source_, false), quarantine_(records_) {
  records_.set_limit(half_of_memory());
  staging_.set_limit(kStagingBytes);
}

Block PinnedPool::acquire(std::size_t bytes) {
  quarantine_.settle();
  if (!settings.pinned) return {};
  Block found = records_.acquire_without_growth(bytes);
  if (found.data() != nullptr) return found;
  found = records_.acquire(bytes);
  if (found.data() != nullptr && settings.grow_ahead) grow_ahead(std::min(kMostAhead, records_.stats().reserved_bytes));
  return found;
}

Block PinnedPool::acquire_staging(std::size_t bytes) { return staging_.acquire(bytes); }

bool PinnedPool::reserve(std::size_t bytes) {
  quarantine_.settle();
  return records_.reserve(bytes);
}

std::size_t PinnedPool::trim() {
  quarantine_.settle();
  return records_.trim() + staging_.trim();
}

void PinnedPool::attach(const Driver& driver, Context context) { source_.attach(driver, context); }

void PinnedPool::detach() {
  {
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;
    changed_.wait(lock, [&] { return !growing_; });
  }
  source_.detach();
}

void PinnedPool::grow_ahead(std::size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_) return;
  wanted_ = bytes;
  if (!grower_.joinable()) grower_ = std::thread([this] { work(); });
  changed_.notify_all();
}

void PinnedPool::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || wanted_ > 0; });
    if (stopping_) return;
    const std::size_t bytes = std::exchange(wanted_, 0);
    growing_ = true;
    lock.unlock();
    records_.reserve(bytes);
    lock.lock();
    growing_ = false;
    changed_.notify_all();
  }
}

void PinnedPool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (grower_.joinable()) grower_.join();
}

}  // namespace nntap::cuda
