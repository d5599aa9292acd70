#include "copy/host_pool.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "support/error.hpp"

#ifndef __linux__  // no such advice: it is refused, as by a kernel that is too old
#define MADV_POPULATE_WRITE -1
#define MADV_HUGEPAGE -1
#elif !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace nntap {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kTouchStep = std::size_t{4} << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Faults the pages in before a copy meets them; a fault in the middle of a copy costs many times the copy.
void touch(char* begin, std::size_t size) {
  if (madvise(begin, size, MADV_POPULATE_WRITE) == 0) return;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (std::size_t i = 0; i < size; i += page) *const_cast<volatile char*>(begin + i) = 0;
}

}  // namespace

/// One mapping. Bytes from `top` on have never been cut since the slab was last empty.
struct Block::Slab {
  char* base = nullptr;
  std::size_t size = 0;
  std::size_t top = 0;
  std::size_t touched = 0;
  std::size_t used = 0;
  std::vector<std::pair<char*, std::size_t>> returned;  // not yet free ranges; see settle_returned()
};

Block& Block::operator=(Block&& other) noexcept {
  if (this != &other) {
    release();
    slab_ = std::exchange(other.slab_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void Block::release() noexcept {
  if (slab_ != nullptr) HostPool::instance().give_back(slab_, data_, size_);
  slab_ = nullptr;
}

HostPool& HostPool::instance() {
  static auto* pool = new HostPool;
  return *pool;
}

HostPool::HostPool() {
  stats_.slab_bytes = kSlabBytes;
  pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                 [] { instance().mutex_.unlock(); });
}

Block HostPool::acquire(std::size_t bytes) {
  const std::size_t size = std::max(round_up(bytes, kAlignment), kAlignment);
  std::lock_guard<std::mutex> lock(mutex_);
  if (fits(current_, size)) return lease(*current_, cut(*current_, size), size);
  if (Slab* slab = take_empty_slab(size)) return lease(*slab, cut(*slab, size), size);
  if (auto [slab, data] = take_range(size); data != nullptr) return lease(*slab, data, size);
  if (Slab* slab = grow(size)) return lease(*slab, cut(*slab, size), size);
  return {};
}

bool HostPool::fits(const Slab* slab, std::size_t size) const {
  return slab != nullptr && slab->size - slab->top >= size;
}

char* HostPool::cut(Slab& slab, std::size_t size) {
  char* data = slab.base + slab.top;
  slab.top += size;
  return data;
}

Block HostPool::lease(Slab& slab, char* data, std::size_t size) {
  const auto end = static_cast<std::size_t>(data + size - slab.base);
  if (end > slab.touched) {
    const std::size_t touched = std::min(slab.size, round_up(end, kTouchStep));
    touch(slab.base + slab.touched, touched - slab.touched);
    stats_.touched_bytes += touched - slab.touched;
    slab.touched = touched;
  }
  slab.used += size;
  stats_.used_bytes += size;
  stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.used_bytes);
  return Block(&slab, data, size);
}

void HostPool::give_back(Slab* slab, char* data, std::size_t size) noexcept {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    slab->used -= size;
    stats_.used_bytes -= size;
    ++returns_;
    if (slab->used == 0) {
      forget_ranges(*slab);
      unsettled_ -= slab->returned.size();
      slab->returned.clear();
      slab->top = 0;
    } else if (slab == current_ && data + size == slab->base + slab->top) {
      slab->top -= size;
    } else {
      slab->returned.emplace_back(data, size);
      ++unsettled_;
    }
  }
  returned_.notify_all();
}

HostPool::Slab* HostPool::take_empty_slab(std::size_t size) {
  Slab* best = nullptr;
  for (const auto& slab : slabs_) {
    if (slab->used == 0 && slab->size >= size && (best == nullptr || slab->size < best->size)) {
      best = slab.get();
    }
  }
  if (best != nullptr && best != current_) {
    retire_current();
    current_ = best;
  }
  return best;
}

HostPool::Slab* HostPool::grow(std::size_t size) {
  const std::size_t bytes = std::max(kSlabBytes, round_up(size, kHugePage));
  const auto over = [&] { return stats_.limit_bytes != 0 && stats_.reserved_bytes + bytes > stats_.limit_bytes; };
  if (over()) drop_empty_slabs();
  if (over()) return nullptr;
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  madvise(base, bytes, MADV_HUGEPAGE);  // fewer faults; refused where the kernel has none
  auto slab = std::make_unique<Slab>();
  slab->base = static_cast<char*>(base);
  slab->size = bytes;
  stats_.reserved_bytes += bytes;
  retire_current();
  current_ = slabs_.emplace_back(std::move(slab)).get();
  return current_;
}

// What is left at the end of the current slab becomes a free range, like any other hole.
void HostPool::retire_current() {
  if (current_ == nullptr || current_->used == 0) return;
  Slab& slab = *current_;
  current_ = nullptr;
  if (slab.top < slab.size) add_range(slab, slab.base + slab.top, slab.size - slab.top);
  slab.top = slab.size;
}

// Returned blocks wait in their slab, because most slabs empty as a whole; only when memory is wanted are they
// merged into ranges.
void HostPool::settle_returned() {
  if (unsettled_ == 0) return;
  for (const auto& slab : slabs_) {
    for (auto [data, size] : slab->returned) add_range(*slab, data, size);
    slab->returned.clear();
  }
  unsettled_ = 0;
}

void HostPool::add_range(Slab& slab, char* begin, std::size_t size) {
  auto next = ranges_.lower_bound(begin);
  if (next != ranges_.end() && next->second.first == &slab && begin + size == next->first) {
    size += next->second.second;
    drop_range(next);
  }
  auto after = ranges_.lower_bound(begin);
  if (after != ranges_.begin()) {
    auto before = std::prev(after);
    if (before->second.first == &slab && before->first + before->second.second == begin) {
      begin = before->first;
      size += before->second.second;
      drop_range(before);
    }
  }
  ranges_.emplace(begin, std::make_pair(&slab, size));
  ranges_by_size_.emplace(size, begin);
}

void HostPool::drop_range(std::map<char*, std::pair<Slab*, std::size_t>>::iterator range) {
  ranges_by_size_.erase({range->second.second, range->first});
  ranges_.erase(range);
}

void HostPool::forget_ranges(const Slab& slab) {
  auto range = ranges_.lower_bound(slab.base);
  while (range != ranges_.end() && range->first < slab.base + slab.size) drop_range(range++);
}

std::pair<HostPool::Slab*, char*> HostPool::take_range(std::size_t size) {
  settle_returned();
  const auto fit = ranges_by_size_.lower_bound({size, nullptr});
  if (fit == ranges_by_size_.end()) return {nullptr, nullptr};
  const auto [found, data] = *fit;
  const auto range = ranges_.find(data);
  Slab* slab = range->second.first;
  drop_range(range);
  if (found > size) add_range(*slab, data + size, found - size);
  return {slab, data};
}

bool HostPool::wait_for_return(std::chrono::milliseconds patience) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto before = returns_;
  return returned_.wait_for(lock, patience, [&] { return returns_ != before; });
}

void HostPool::set_limit(std::size_t bytes) {
  NNTAP_CHECK(bytes == 0 || bytes >= kSlabBytes, InvalidArgument, "host_bytes=", bytes,
              " is below one slab: give at least ", kSlabBytes, " bytes (", kSlabBytes >> 20,
              " MiB), or None for no limit");
  std::lock_guard<std::mutex> lock(mutex_);
  stats_.limit_bytes = bytes;
  if (bytes != 0 && stats_.reserved_bytes > bytes) drop_empty_slabs();
}

std::size_t HostPool::trim() {
  std::lock_guard<std::mutex> lock(mutex_);
  return drop_empty_slabs();
}

std::size_t HostPool::drop_empty_slabs() {
  std::size_t freed = 0;
  const auto keep = std::partition(slabs_.begin(), slabs_.end(), [](const auto& s) { return s->used != 0; });
  for (auto slab = keep; slab != slabs_.end(); ++slab) {
    if (slab->get() == current_) current_ = nullptr;
    munmap((*slab)->base, (*slab)->size);
    freed += (*slab)->size;
    stats_.touched_bytes -= (*slab)->touched;
  }
  slabs_.erase(keep, slabs_.end());
  stats_.reserved_bytes -= freed;
  return freed;
}

HostPoolStats HostPool::stats() const {
  std::lock_guard<std::mutex> lock(mutex_);
  HostPoolStats stats = stats_;
  stats.slabs = slabs_.size();
  return stats;
}

}  // namespace nntap
