#pragma once

#include <cstddef>
#include <utility>

namespace nntap {

class HostPool;
struct Slab;

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

  /// Its first `bytes`, rounded up to the alignment, as a block of their own; this one keeps the rest.
  Block split(std::size_t bytes);

  /// Never gives it back: a device that is lost may still be at it.
  void abandon() noexcept { slab_ = nullptr; }

  /// Returns it as memory that no device has touched, which need not wait for one.
  void recycle() noexcept;

 private:
  friend class HostPool;
  Block(Slab* slab, char* data, std::size_t size) : slab_(slab), data_(data), size_(size) {}
  void release() noexcept;

  Slab* slab_ = nullptr;
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace nntap
