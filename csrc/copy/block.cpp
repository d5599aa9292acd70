#include "copy/block.hpp"

#include <algorithm>
#include <utility>

#include "copy/host_pool.hpp"
#include "copy/slab.hpp"

namespace nntap {

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

}  // namespace nntap
