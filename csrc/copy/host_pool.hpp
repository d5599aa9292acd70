#pragma once

// Host memory for records: slabs of touched pages, cut into blocks, used again.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

namespace nntap {

class HostPool;

/// A lease of pool memory, 64-byte aligned. Returns itself when destroyed, on any thread, without the GIL.
class Block {
 public:
  Block() = default;
  Block(Block&& other) noexcept { *this = std::move(other); }
  Block& operator=(Block&& other) noexcept;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() { release(); }

  void* data() const { return data_; }

 private:
  friend class HostPool;
  struct Slab;
  Block(Slab* slab, char* data, std::size_t size) : slab_(slab), data_(data), size_(size) {}
  void release() noexcept;

  Slab* slab_ = nullptr;
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

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

/// All host memory of the process's records. One instance, never destroyed: a record may outlive the interpreter.
///
/// One mutex guards everything; nothing is called with it held but the kernel. Slabs are only given back by trim(),
/// or under a limit that they stand in the way of. Around fork() the mutex is held, so that a child finds a whole pool,
/// with its own copy of every record.
class HostPool {
 public:
  static constexpr std::size_t kSlabBytes = std::size_t{32} << 20;
  static constexpr std::size_t kAlignment = 64;

  static HostPool& instance();

  /// A block of `bytes`, or an empty one (data() null) when the limit is reached or the system has no memory.
  Block acquire(std::size_t bytes);

  /// Waits until some block has been returned or `patience` is over. Says whether one was returned.
  /// The caller must not hold the GIL.
  bool wait_for_return(std::chrono::milliseconds patience);

  /// 0 removes the limit. Slabs without records that are over it go back to the system; slabs with records stay until
  /// they are free. Throws InvalidArgument below one slab.
  void set_limit(std::size_t bytes);

  /// Gives slabs without records back to the system. Returns their bytes.
  std::size_t trim();

  HostPoolStats stats() const;

 private:
  using Slab = Block::Slab;
  friend class Block;

  HostPool();
  void give_back(Slab* slab, char* data, std::size_t size) noexcept;

  // All of these with mutex_ held.
  char* cut(Slab& slab, std::size_t size);
  Block lease(Slab& slab, char* data, std::size_t size);
  bool fits(const Slab* slab, std::size_t size) const;
  Slab* take_empty_slab(std::size_t size);
  Slab* grow(std::size_t size);
  std::size_t drop_empty_slabs();
  void retire_current();
  void settle_returned();
  void add_range(Slab& slab, char* begin, std::size_t size);
  void drop_range(std::map<char*, std::pair<Slab*, std::size_t>>::iterator range);
  void forget_ranges(const Slab& slab);
  std::pair<Slab*, char*> take_range(std::size_t size);

  mutable std::mutex mutex_;
  std::condition_variable returned_;
  std::uint64_t returns_ = 0;
  std::vector<std::unique_ptr<Slab>> slabs_;
  Slab* current_ = nullptr;  // blocks are cut from its end
  // Free ranges of slabs that also hold records, by address (to merge neighbours) and by size (to find a fit).
  std::map<char*, std::pair<Slab*, std::size_t>> ranges_;
  std::set<std::pair<std::size_t, char*>> ranges_by_size_;
  std::size_t unsettled_ = 0;  // blocks returned whose ranges are not in ranges_ yet
  HostPoolStats stats_;
};

}  // namespace nntap
