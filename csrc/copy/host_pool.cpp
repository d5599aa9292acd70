#include "copy/host_pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <new>

#include "copy/pages.hpp"
#include "copy/slab.hpp"
#include "copy/system_memory.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
// Smaller records lie in slabs of their own: one that is kept would keep a slab of large ones from being used as a
// whole.
constexpr std::size_t kSmall = std::size_t{256} << 10;
constexpr std::size_t kMostBytes = SIZE_MAX / 4;  // more than there are addresses, and sums of it still fit
constexpr std::size_t kTouchStep = std::size_t{4} << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

std::size_t slab_size_for(std::size_t size) { return std::max(HostPool::kSlabBytes, round_up(size, kHugePage)); }

bool is_small(std::size_t size) { return size < kSmall; }

// Room for that many elements, so that adding one of them cannot fail.
template <typename Element>
void make_room(std::vector<Element>& elements, std::size_t count) {
  if (elements.capacity() < count) elements.reserve(std::max(count, 2 * elements.capacity()));
}

class PageableSource final : public SlabSource {
 public:
  char* map(std::size_t bytes) noexcept override { return map_pages(bytes); }
  void unmap(char* base, std::size_t bytes) noexcept override { unmap_pages(base, bytes); }
};

// Every pool of the process, for fork(). Pools are made one after the other, under the GIL, and never destroyed.
std::vector<HostPool*>& all_pools() {
  static auto* all = new std::vector<HostPool*>;
  return *all;
}

}  // namespace

HostPool& HostPool::instance() {
  static auto* pool = new HostPool(*new PageableSource, false);
  return *pool;
}

HostPool::HostPool(SlabSource& source, bool quarantine) : source_(source), quarantine_(quarantine) {
  stats_.slab_bytes = kSlabBytes;
  keep_whole_around_fork();
}

HostPool::~HostPool() = default;

void HostPool::keep_whole_around_fork() {
  if (all_pools().empty()) {
    pthread_atfork(
        [] {
          for (HostPool* each : all_pools()) each->mutex_.lock();
        },
        [] {
          for (HostPool* each : all_pools()) each->mutex_.unlock();
        },
        [] {
          for (HostPool* each : all_pools()) {
            // Whoever waited on the old one is not in the child, and notifying or destroying it would wait for them.
            new (&each->returned_) std::condition_variable;
            each->forget_other_threads();
            each->mutex_.unlock();
          }
        });
  }
  all_pools().push_back(this);
}

// In a child: those that were adding slabs or touching pages are not there, and what they were adding is nobody's.
void HostPool::forget_other_threads() noexcept {
  growing_ = 0;
  stats_.reserved_bytes = 0;
  for (const auto& slab : slabs_) {
    slab->touchers = 0;
    stats_.reserved_bytes += slab->size;
  }
}

Block HostPool::acquire(std::size_t bytes) {
  if (bytes > kMostBytes) return {};
  const std::size_t size = held_for(bytes);
  std::unique_lock<std::mutex> lock(mutex_);
  Block found = find(size);
  while (found.data() == nullptr && grow(size, lock, true) != nullptr) found = find(size);
  if (found.data() == nullptr) found = find_among_others(size);
  return with_pages(std::move(found), lock);
}

Block HostPool::acquire_without_growth(std::size_t bytes) {
  if (bytes > kMostBytes) return {};
  std::unique_lock<std::mutex> lock(mutex_);
  return with_pages(find(held_for(bytes)), lock);
}

bool HostPool::reserve(std::size_t bytes) {
  if (bytes > kMostBytes) return false;
  std::unique_lock<std::mutex> lock(mutex_);
  std::vector<const Slab*> added;
  for (std::size_t there = 0; (there = bytes_without_records()) < bytes;) {
    added.push_back(grow_for_reserve(bytes - there, lock));
    if (added.back() != nullptr) continue;
    const auto removed = remove_empty_slabs(&added);
    lock.unlock();
    unmap(removed);
    return false;
  }
  while (touch_a_step(bytes, lock)) continue;
  return true;
}

std::size_t HostPool::bytes_without_records() const {
  std::size_t sum = 0;
  for (const auto& slab : slabs_) sum += slab->used == 0 ? slab->size : 0;
  return sum;
}

// A new slab of some of what is missing, or null where the machine does not have all of it, or the limit forbids it.
const Slab* HostPool::grow_for_reserve(std::size_t missing, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  const bool has_it = missing <= memory_to_be_had();
  lock.lock();
  return has_it ? grow(std::min(missing, source_.most_at_once()), lock, false) : nullptr;
}

Block HostPool::find(std::size_t size) {
  Slab*& current = current_[is_small(size)];
  if (fits(current, size)) return cut(*current, size);
  if (Slab* slab = take_empty_slab(size)) return cut(*slab, size);
  settle_returned();
  const auto [slab, data] = ranges_.take(size);
  return data == nullptr ? Block() : lease(*slab, data, size);
}

// Where the pool may not grow, small and large records share a slab after all.
Block HostPool::find_among_others(std::size_t size) {
  Slab* other = current_[!is_small(size)];
  return fits(other, size) ? cut(*other, size) : Block();
}

bool HostPool::fits(const Slab* slab, std::size_t size) const {
  return slab != nullptr && slab->size - slab->top >= size;
}

Block HostPool::cut(Slab& slab, std::size_t size) {
  Block block = lease(slab, slab.base + slab.top, size);
  slab.top += size;
  return block;
}

Block HostPool::lease(Slab& slab, char* data, std::size_t size) {
  expect_return(slab);
  slab.used += size;
  stats_.used_bytes += size;
  stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.used_bytes);
  return Block(&slab, data, size);
}

// Counts one more block, and makes room for it where it will come back to.
void HostPool::expect_return(Slab& slab) {
  make_room(slab.returned, slab.returned.size() + slab.leased + 1);
  if (quarantine_) make_room(quarantined_, leased_ + 1);
  ++slab.leased;
  ++leased_;
}

void HostPool::expect_one_more(Slab& slab) {
  std::lock_guard<std::mutex> lock(mutex_);
  expect_return(slab);
}

// The block, with its pages touched, which happens without the mutex.
Block HostPool::with_pages(Block block, std::unique_lock<std::mutex>& lock) {
  if (block.data() == nullptr) return block;
  Slab& slab = *block.slab_;
  const std::size_t from = slab.touched;
  const auto end = static_cast<std::size_t>(block.data_ + block.size_ - slab.base);
  if (end > from) {
    slab.touched = std::min(slab.size, round_up(end, kTouchStep));
    const std::size_t step = slab.touched - from;
    stats_.touched_bytes += step;
    lock.unlock();
    touch_pages(slab.base + from, step);
  }
  return block;
}

// Some more pages of the first `bytes` in slabs without records. False when all exist.
bool HostPool::touch_a_step(std::size_t bytes, std::unique_lock<std::mutex>& lock) {
  std::size_t before = 0;
  for (const auto& slab : slabs_) {
    if (slab->used > 0) continue;
    if (before >= bytes) break;
    const std::size_t end = std::min(slab->size, round_up(bytes - before, kTouchStep));
    if (slab->touched < end) {
      const std::size_t step = std::min(kTouchStep, end - slab->touched);
      char* const begin = slab->base + std::exchange(slab->touched, slab->touched + step);
      stats_.touched_bytes += step;
      Slab& held = *slab;  // the vector may change meanwhile
      ++held.touchers;
      lock.unlock();
      touch_pages(begin, step);
      lock.lock();
      --held.touchers;
      return true;
    }
    before += slab->size;
  }
  return false;
}

void HostPool::give_back(Slab* slab, char* data, std::size_t size, bool clean) noexcept {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++returns_;
    if (quarantine_ && !clean) {
      quarantined_.push_back({slab, data, size});
    } else {
      free_block(slab, data, size);
    }
  }
  returned_.notify_all();
}

std::vector<Block> HostPool::take_returned() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Block> blocks;
  blocks.reserve(quarantined_.size());
  for (const Returned& each : quarantined_) blocks.push_back(Block(each.slab, each.data, each.size));
  quarantined_.clear();
  return blocks;
}

void HostPool::free_block(Slab* slab, char* data, std::size_t size) noexcept {
  --slab->leased;
  --leased_;
  slab->used -= size;
  stats_.used_bytes -= size;
  if (slab->used == 0) {
    ranges_.forget(*slab);
    unsettled_ -= slab->returned.size();
    slab->returned.clear();
    slab->top = 0;
  } else if (is_current(slab) && data + size == slab->base + slab->top) {
    slab->top -= size;
  } else {
    slab->returned.emplace_back(data, size);
    ++unsettled_;
  }
}

Slab* HostPool::take_empty_slab(std::size_t size) {
  Slab* best = nullptr;
  for (const auto& slab : slabs_) {
    if (slab->used == 0 && slab->size >= size && (best == nullptr || slab->size < best->size)) {
      best = slab.get();
    }
  }
  if (best == nullptr || best == current_[is_small(size)]) return best;
  if (best == current_[!is_small(size)]) current_[!is_small(size)] = nullptr;
  retire(current_[is_small(size)]);
  current_[is_small(size)] = best;
  return best;
}

// The new slab, or null.
const Slab* HostPool::grow(std::size_t size, std::unique_lock<std::mutex>& lock, bool may_drop) {
  const std::size_t bytes = slab_size_for(size);
  const auto over = [&] { return stats_.limit_bytes != 0 && stats_.reserved_bytes + bytes > stats_.limit_bytes; };
  auto slab = std::make_unique<Slab>();
  make_room(slabs_, slabs_.size() + growing_ + 1);
  std::vector<std::unique_ptr<Slab>> dropped;
  if (over() && may_drop) dropped = remove_empty_slabs();
  const bool allowed = !over();
  if (allowed) {
    stats_.reserved_bytes += bytes;  // so that threads growing at once stay below the limit together
    ++growing_;
  }
  lock.unlock();
  unmap(dropped);
  char* base = allowed ? source_.map(bytes) : nullptr;
  lock.lock();
  if (!allowed) return nullptr;
  --growing_;
  if (base != nullptr) return adopt(std::move(slab), base, bytes);
  stats_.reserved_bytes -= bytes;
  return nullptr;
}

const Slab* HostPool::adopt(std::unique_ptr<Slab> slab, char* base, std::size_t bytes) noexcept {
  slab->home = this;
  slab->base = base;
  slab->size = bytes;
  slab->touched = source_.maps_touched() ? bytes : 0;
  stats_.touched_bytes += slab->touched;
  slabs_.push_back(std::move(slab));
  return slabs_.back().get();
}

// What is left at the end of the current slab becomes a free range, like any other hole.
void HostPool::retire(Slab*& current) {
  if (current == nullptr || current->used == 0) return;
  Slab& slab = *std::exchange(current, nullptr);
  if (slab.top < slab.size) ranges_.add(slab, slab.base + slab.top, slab.size - slab.top);
  slab.top = slab.size;
}

// Returned blocks wait in their slab, because most slabs empty as a whole; only when memory is wanted are they
// merged into ranges. Each is taken off first: where adding it fails, it is lost until its slab is empty, not there
// twice.
void HostPool::settle_returned() {
  if (unsettled_ == 0) return;
  for (const auto& slab : slabs_) {
    while (!slab->returned.empty()) {
      const auto [data, size] = slab->returned.back();
      slab->returned.pop_back();
      --unsettled_;
      ranges_.add(*slab, data, size);
    }
  }
}

bool HostPool::can_fit(std::size_t bytes) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto has_room = [&](const auto& slab) { return slab->size >= bytes; };  // from before a lower limit
  return stats_.limit_bytes == 0 || slab_size_for(held_for(bytes)) <= stats_.limit_bytes ||
         std::any_of(slabs_.begin(), slabs_.end(), has_room);
}

bool HostPool::wait_for_return(std::chrono::milliseconds patience) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto before = returns_;
  return returned_.wait_for(lock, patience, [&] { return returns_ != before; });
}

void HostPool::set_limit(std::size_t bytes) {
  NNTAP_CHECK(bytes == 0 || bytes >= kSlabBytes, InvalidArgument, "a limit of ", bytes, " bytes is below one slab of ",
              kSlabBytes);
  std::vector<std::unique_ptr<Slab>> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stats_.limit_bytes = bytes;
    if (bytes != 0 && stats_.reserved_bytes > bytes) dropped = remove_empty_slabs();
  }
  unmap(dropped);
}

std::size_t HostPool::trim() {
  std::vector<std::unique_ptr<Slab>> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    dropped = remove_empty_slabs();
  }
  unmap(dropped);
  std::size_t freed = 0;
  for (const auto& slab : dropped) freed += slab->size;
  return freed;
}

// Of those in `among`, where it is given.
std::vector<std::unique_ptr<Slab>> HostPool::remove_empty_slabs(const std::vector<const Slab*>* among) {
  const auto stays = [&](const auto& slab) {
    const bool meant = among == nullptr || std::find(among->begin(), among->end(), slab.get()) != among->end();
    return slab->used != 0 || slab->touchers != 0 || !meant;
  };
  const auto keep = std::partition(slabs_.begin(), slabs_.end(), stays);
  std::vector<std::unique_ptr<Slab>> removed;
  removed.reserve(static_cast<std::size_t>(slabs_.end() - keep));
  for (auto slab = keep; slab != slabs_.end(); ++slab) {
    for (Slab*& current : current_) current = slab->get() == current ? nullptr : current;
    stats_.touched_bytes -= (*slab)->touched;
    stats_.reserved_bytes -= (*slab)->size;
    removed.push_back(std::move(*slab));
  }
  slabs_.erase(keep, slabs_.end());
  return removed;
}

void HostPool::unmap(const std::vector<std::unique_ptr<Slab>>& slabs) noexcept {
  for (const auto& slab : slabs) source_.unmap(slab->base, slab->size);
}

HostPoolStats HostPool::stats() const {
  std::lock_guard<std::mutex> lock(mutex_);
  HostPoolStats stats = stats_;
  stats.slabs = slabs_.size();
  return stats;
}

}  // namespace nntap
