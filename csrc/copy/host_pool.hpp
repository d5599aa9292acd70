#pragma once

// Host memory for records: slabs of touched pages, cut into blocks, used again.
//
// Every pool works alike; where its slabs come from is its source's business (pageable here, pinned in device/cuda).

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "copy/block.hpp"
#include "copy/free_ranges.hpp"

namespace nntap {

/// What the pool holds, in bytes unless the name says otherwise.
struct HostPoolStats {
  std::size_t slabs = 0;           ///< count
  std::size_t slab_bytes = 0;      ///< size of an ordinary slab
  std::size_t reserved_bytes = 0;  ///< address space of all slabs; what the limit counts
  std::size_t touched_bytes = 0;   ///< of them, pages that exist
  std::size_t used_bytes = 0;      ///< blocks that records live in
  std::size_t peak_bytes = 0;      ///< the most that used_bytes has been
  std::size_t limit_bytes = 0;     ///< 0: none
};

/// Where a pool's slabs come from. Called without the pool's lock, from several threads.
class SlabSource {
 public:
  virtual ~SlabSource() = default;

  /// Memory for a slab, or null when the system refuses.
  virtual char* map(std::size_t bytes) noexcept = 0;
  virtual void unmap(char* base, std::size_t bytes) noexcept = 0;

  /// Whether map() gives pages that exist already; else the pool touches them as it cuts blocks.
  virtual bool maps_touched() const { return false; }

  /// The largest slab to ask for where no single record needs a larger one.
  virtual std::size_t most_at_once() const { return std::size_t{1} << 30; }
};

/// Pools are never destroyed: a record may outlive the interpreter.
///
/// One mutex guards everything; nothing slow is done with it held, so that a thread which drops a record with the GIL
/// held never waits for pages. Slabs are only given back by trim(), or under a limit that they stand in the way of.
/// Around fork() the mutex is held, so that a child finds a whole pool, with its own copy of every record.
class HostPool {
 public:
  static constexpr std::size_t kSlabBytes = std::size_t{32} << 20;
  static constexpr std::size_t kAlignment = 64;

  /// The size of the block for that many bytes.
  static constexpr std::size_t held_for(std::size_t bytes) {
    return bytes == 0 ? kAlignment : (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  /// Blocks of a pool with a quarantine are not used again when they come back, but handed out by take_returned().
  HostPool(SlabSource& source, bool quarantine);
  ~HostPool();

  /// The pool of pageable memory.
  static HostPool& instance();

  /// A block of `bytes`, or an empty one (data() null) when the limit is reached or the system has no memory. Throws
  /// std::bad_alloc, as do all that lease, split or add; nothing that gives back does.
  Block acquire(std::size_t bytes);

  /// The same from the slabs that are there.
  Block acquire_without_growth(std::size_t bytes);

  /// Adds slabs until `bytes` lie in slabs without records, whose pages then exist. False, with nothing added, where
  /// the limit or the system does not allow it.
  bool reserve(std::size_t bytes);

  /// Whether the limit leaves room for a block of `bytes`, were no other there.
  bool can_fit(std::size_t bytes) const;

  /// Waits until some block has been returned or `patience` is over. Says whether one was returned.
  /// The caller must not hold the GIL.
  bool wait_for_return(std::chrono::milliseconds patience);

  /// 0 removes the limit. Slabs without records that are over it go back to the system; slabs with records stay until
  /// they are free. Throws InvalidArgument below one slab.
  void set_limit(std::size_t bytes);

  /// Gives slabs without records back to the system. Returns their bytes.
  std::size_t trim();

  /// Blocks that have come back to a pool with a quarantine since the last call. Call recycle() on each once no device
  /// can touch it any more; one that is destroyed instead comes back to the quarantine.
  std::vector<Block> take_returned();

  HostPoolStats stats() const;

 private:
  friend class Block;

  void keep_whole_around_fork();
  void forget_other_threads() noexcept;
  void expect_one_more(Slab& slab);
  void give_back(Slab* slab, char* data, std::size_t size, bool clean) noexcept;
  void unmap(const std::vector<std::unique_ptr<Slab>>& slabs) noexcept;

  // All of these with mutex_ held; those that take the lock drop it while they do what is slow.
  Block find(std::size_t size);
  Block find_among_others(std::size_t size);
  Block cut(Slab& slab, std::size_t size);
  Block lease(Slab& slab, char* data, std::size_t size);
  void expect_return(Slab& slab);
  Block with_pages(Block block, std::unique_lock<std::mutex>& lock);
  bool touch_a_step(std::size_t bytes, std::unique_lock<std::mutex>& lock);
  std::size_t bytes_without_records() const;
  const Slab* grow_for_reserve(std::size_t missing, std::unique_lock<std::mutex>& lock);
  bool fits(const Slab* slab, std::size_t size) const;
  Slab* take_empty_slab(std::size_t size);
  const Slab* grow(std::size_t size, std::unique_lock<std::mutex>& lock, bool may_drop);
  const Slab* adopt(std::unique_ptr<Slab> slab, char* base, std::size_t bytes) noexcept;
  std::vector<std::unique_ptr<Slab>> remove_empty_slabs(const std::vector<const Slab*>* among = nullptr);
  void retire(Slab*& current);
  bool is_current(const Slab* slab) const { return slab == current_[0] || slab == current_[1]; }
  void free_block(Slab* slab, char* data, std::size_t size) noexcept;
  void settle_returned();

  SlabSource& source_;
  const bool quarantine_;
  mutable std::mutex mutex_;
  std::condition_variable returned_;
  std::uint64_t returns_ = 0;
  std::vector<std::unique_ptr<Slab>> slabs_;
  std::size_t growing_ = 0;                // slabs that the source is being asked for; slabs_ has room for them
  Slab* current_[2] = {nullptr, nullptr};  // blocks are cut from their ends: of large records, of small ones
  FreeRanges ranges_;
  std::size_t unsettled_ = 0;  // blocks returned whose ranges are not in ranges_ yet
  struct Returned {
    Slab* slab;
    char* data;
    std::size_t size;
  };
  std::vector<Returned> quarantined_;  // come back, and not yet taken by take_returned()
  std::size_t leased_ = 0;             // blocks; quarantined_ has room for all of them
  HostPoolStats stats_;
};

}  // namespace nntap
