#include "device/cuda/pinned_pool.hpp"

#include <algorithm>
#include <new>
#include <system_error>

#include "copy/pages.hpp"
#include "copy/system_memory.hpp"
#include "device/cuda/check.hpp"
#include "device/cuda/platform.hpp"
#include "device/cuda/settings.hpp"
#include "support/error.hpp"
#include "support/event_log.hpp"

namespace nntap::cuda {
namespace {

// One call pins at most this much where it can: the driver holds its lock for a call, and every launch of the process
// waits for it.
constexpr std::size_t kMostAtOnce = std::size_t{256} << 20;
constexpr std::size_t kPage = std::size_t{64} << 10;  // a multiple of every system's
constexpr std::size_t kStagingBytes = 2 * HostPool::kSlabBytes;
constexpr std::size_t kMostAhead = std::size_t{1} << 30;

std::size_t half_of_memory() { return std::max(HostPool::kSlabBytes, memory_of_this_system() / 2); }

// Whether the driver will not pin memory here at all: in some containers and virtual machines, or under `ulimit -l`.
bool pins_nothing(Result result) {
  return result == kOutOfMemory || result == kOperatingSystem || result == kNotPermitted || result == kNotSupported;
}

}  // namespace

std::size_t PinnedSource::most_at_once() const { return kMostAtOnce; }

char* PinnedSource::map(std::size_t bytes) noexcept {
  if (refuses(bytes)) return nullptr;
  const LoggedScope logged("pin memory", bytes);
  char* base = map_pages(bytes);
  if (base == nullptr) return nullptr;
  touch_pages_in_parallel(base, bytes);  // a page that exists is registered several times faster
  if (add({base, bytes})) return base;
  unmap_pages(base, bytes);
  return nullptr;
}

bool PinnedSource::refuses(std::size_t bytes) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return bytes >= refused_bytes_;
}

bool PinnedSource::add(const Registration& slab) noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  try {
    slabs_.push_back(slab);
  } catch (const std::bad_alloc&) {
    return false;
  }
  const Result result = register_with_driver(slab);
  if (result == kSuccess) return true;
  refusal_ = result;
  refused_bytes_ = std::min(refused_bytes_, slab.bytes);
  slabs_.pop_back();
  return false;
}

Result PinnedSource::refusal() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return refusal_;
}

void PinnedSource::ask_again() {
  if (forked()) return;
  std::lock_guard<std::mutex> lock(mutex_);
  forget_refusal();
}

void PinnedSource::forget_refusal() {
  refusal_ = kSuccess;
  refused_bytes_ = SIZE_MAX;
}

void PinnedSource::unmap(char* base, std::size_t bytes) noexcept {
  if (!forked()) remove(base);
  unmap_pages(base, bytes);
}

void PinnedSource::remove(char* base) noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto is_meant = [=](const Registration& each) { return each.base == base; };
  const auto slab = std::find_if(slabs_.begin(), slabs_.end(), is_meant);
  if (slab != slabs_.end()) {
    unregister(*slab);
    slabs_.erase(slab);
  }
  forget_refusal();
}

void PinnedSource::attach(const Driver& driver, Context context) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (driver_ != nullptr) return;  // for the platform's first device, and so for all
  driver_ = &driver;
  context_ = context;
  std::size_t done = 0;
  Result result = slabs_.empty() ? try_a_page() : kSuccess;
  while (result == kSuccess && done < slabs_.size()) result = register_with_driver(slabs_[done++]);
  if (result == kSuccess) return;
  for (std::size_t i = 0; i + 1 < done; ++i) unregister(slabs_[i]);
  driver_ = nullptr;
  NNTAP_CHECK(!pins_nothing(result), NoPinnedMemory, "the driver pins no host memory");
  throw_driver_error(driver, "cuMemHostRegister", result);
}

Result PinnedSource::try_a_page() {
  char* page = map_pages(kPage);
  if (page == nullptr) return kOutOfMemory;
  touch_pages(page, kPage);
  const Registration slab{page, kPage};
  const Result result = register_with_driver(slab);
  if (result == kSuccess) unregister(slab);
  unmap_pages(page, kPage);
  return result;
}

void PinnedSource::detach() noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const Registration& slab : slabs_) unregister(slab);
  driver_ = nullptr;
  forget_refusal();
}

Result PinnedSource::register_with_driver(const Registration& slab) {
  if (driver_ == nullptr) return kSuccess;
  const NoexceptContextScope scope(*driver_, context_);
  return scope.entered() ? driver_->host_register(slab.base, slab.bytes, kHostRegisterPortable) : kInvalidContext;
}

void PinnedSource::unregister(const Registration& slab) noexcept {
  if (driver_ == nullptr) return;
  const NoexceptContextScope scope(*driver_, context_);
  if (scope.entered()) driver_->host_unregister(slab.base);
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
  has_staging();
  found = records_.acquire(bytes);
  if (found.data() != nullptr && settings.grow_ahead) grow_ahead(std::min(kMostAhead, records_.stats().reserved_bytes));
  return found;
}

Block PinnedPool::acquire_staging(std::size_t bytes) { return staging_.acquire(bytes); }

bool PinnedPool::reserve(std::size_t bytes) {
  quarantine_.wait();
  source_.ask_again();
  return records_.reserve(bytes);
}

void PinnedPool::set_limit(std::size_t bytes) {
  records_.set_limit(bytes);
  source_.ask_again();
}

std::size_t PinnedPool::trim() {
  quarantine_.wait();
  source_.ask_again();
  return records_.trim() + staging_.trim();
}

// Staging memory is there before records may take the last that the driver pins: without it nothing that is already
// enqueued could be brought to the host.
bool PinnedPool::has_staging() { return staging_.stats().reserved_bytes > 0 || staging_.reserve(HostPool::kSlabBytes); }

void PinnedPool::attach(const Driver& driver, Context context) {
  source_.attach(driver, context);
  if (has_staging()) return;
  const Result refusal = source_.refusal();
  source_.detach();
  if (refusal != kSuccess && !pins_nothing(refusal)) throw_driver_error(driver, "cuMemHostRegister", refusal);
  throw NoPinnedMemory("the driver pins too little host memory");
}

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
  try {
    if (!grower_.joinable()) grower_ = std::thread([this] { work(); });
  } catch (const std::system_error&) {  // no thread to be had: the pool grows when memory is asked for
    return;
  }
  wanted_ = bytes;
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
    try {
      records_.reserve(bytes);
    } catch (const std::bad_alloc&) {  // whoever needs the memory is told
    }
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
