#include "copy/host_pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <new>

#include "copy/pages.hpp"
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

/// One mapping. Bytes from `top` on have never been cut since the slab was last empty.
struct Block::Slab {
  HostPool* home = nullptr;
  char* base = nullptr;
  std::size_t size = 0;
  std::size_t top = 0;
  std::size_t touched = 0;
  std::size_t used = 0;
  std::size_t leased = 0;                               // blocks
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
  if (slab_ != nullptr) slab_->home->give_back(slab_, data_, size_, false);
  slab_ = nullptr;
}

void Block::recycle() noexcept {
  if (slab_ != nullptr) slab_->home->give_back(slab_, data_, size_, true);
  slab_ = nullptr;
}

Block Block::split(std::size_t bytes) {
  const std::size_t size = std::min(size_, HostPool::held_for(bytes));
  if (size == size_) return std::move(*this);
  slab_->home->expect_one_more(*slab_);
  Block first(slab_, data_, size);
  data_ += size;
  size_ -= size;
  return first;
}

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
            each->mutex_.unlock();
          }
        });
  }
  all_pools().push_back(this);
}

Block HostPool::acquire(std::size_t bytes) {
  if (bytes > kMostBytes) return {};
  const std::size_t size = held_for(bytes);
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    Block found = find(size);
    if (found.data() == nullptr) {
      if (grow(size, lock, true) != nullptr) continue;
      found = find_among_others(size);
      if (found.data() == nullptr) return found;
    }
    const Untouched pages = untouched_in(found);
    lock.unlock();
    if (pages.bytes > 0) touch_pages(pages.begin, pages.bytes);
    return found;
  }
}

Block HostPool::acquire_without_growth(std::size_t bytes) {
  if (bytes > kMostBytes) return {};
  std::unique_lock<std::mutex> lock(mutex_);
  Block found = find(held_for(bytes));
  if (found.data() == nullptr) return found;
  const Untouched pages = untouched_in(found);
  lock.unlock();
  if (pages.bytes > 0) touch_pages(pages.begin, pages.bytes);
  return found;
}

bool HostPool::reserve(std::size_t bytes) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto empty = [&] {
    std::size_t sum = 0;
    for (const auto& slab : slabs_) sum += slab->used == 0 ? slab->size : 0;
    return sum;
  };
  std::vector<const Slab*> added;
  const auto refused = [&] {
    const auto removed = remove_empty_slabs(&added);
    lock.unlock();
    unmap(removed);
    return false;
  };
  if (bytes > kMostBytes) return false;
  while (empty() < bytes) {
    const std::size_t missing = bytes - empty();
    if (missing > memory_to_be_had()) return refused();
    added.push_back(grow(std::min(missing, source_.most_at_once()), lock, false));
    if (added.back() == nullptr) return refused();
  }
  while (touch_a_step(bytes)) {
    lock.unlock();
    lock.lock();  // others are let in between
  }
  return true;
}

Block HostPool::find(std::size_t size) {
  Slab*& current = current_[is_small(size)];
  if (fits(current, size)) return lease(*current, cut(*current, size), size);
  if (Slab* slab = take_empty_slab(size)) return lease(*slab, cut(*slab, size), size);
  if (auto [slab, data] = take_range(size); data != nullptr) return lease(*slab, data, size);
  return {};
}

// Where the pool may not grow, small and large records share a slab after all.
Block HostPool::find_among_others(std::size_t size) {
  Slab* other = current_[!is_small(size)];
  return fits(other, size) ? lease(*other, cut(*other, size), size) : Block();
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

HostPool::Untouched HostPool::untouched_in(const Block& block) {
  Slab& slab = *block.slab_;
  const std::size_t from = slab.touched;
  const auto end = static_cast<std::size_t>(block.data_ + block.size_ - slab.base);
  if (end <= from) return {};
  slab.touched = std::min(slab.size, round_up(end, kTouchStep));
  stats_.touched_bytes += slab.touched - from;
  return {slab.base + from, slab.touched - from};
}

// Some more pages of the first `bytes` in slabs without records. False when all exist.
bool HostPool::touch_a_step(std::size_t bytes) {
  std::size_t before = 0;
  for (const auto& slab : slabs_) {
    if (slab->used > 0) continue;
    if (before >= bytes) break;
    const std::size_t end = std::min(slab->size, round_up(bytes - before, kTouchStep));
    if (slab->touched < end) {
      const std::size_t step = std::min(kTouchStep, end - slab->touched);
      touch_pages(slab->base + slab->touched, step);
      slab->touched += step;
      stats_.touched_bytes += step;
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
    forget_ranges(*slab);
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

HostPool::Slab* HostPool::take_empty_slab(std::size_t size) {
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
const HostPool::Slab* HostPool::grow(std::size_t size, std::unique_lock<std::mutex>& lock, bool may_drop) {
  const std::size_t bytes = std::max(kSlabBytes, round_up(size, kHugePage));
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

const HostPool::Slab* HostPool::adopt(std::unique_ptr<Slab> slab, char* base, std::size_t bytes) noexcept {
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
std::vector<std::unique_ptr<Block::Slab>> HostPool::remove_empty_slabs(const std::vector<const Slab*>* among) {
  const auto stays = [&](const auto& slab) {
    const bool meant = among == nullptr || std::find(among->begin(), among->end(), slab.get()) != among->end();
    return slab->used != 0 || !meant;
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
