#include "device/cuda/filling.hpp"

#include <algorithm>

#include "device/cuda/edges.hpp"

namespace nntap::cuda {

Filling::Filling(Stream stream, std::shared_ptr<Transfer> transfer, Block region, bool staged)
    : stream_(stream),
      transfer_(std::move(transfer)),
      region_(std::move(region)),
      staged_(staged),
      host_(static_cast<char*>(region_.data())) {}

char* Filling::add(const std::shared_ptr<Record>& record) {
  const std::size_t bytes = record->nbytes;
  if (staged_) {
    if (record->block.data() == nullptr) record->block = HostPool::instance().acquire(bytes);
    if (record->block.data() == nullptr) return nullptr;
    parts_.push_back({host_ + used_, static_cast<char*>(record->block.data()), bytes});
  } else {
    record->block = region_.split(bytes);
  }
  record->landing = transfer_;
  if (keeps(Edge::open_chunk_holds_records)) records_.push_back(record);
  char* out = chunk_->base + used_;
  used_ =
      std::min(chunk_->bytes, (used_ + bytes + HostPool::kAlignment - 1) / HostPool::kAlignment * HostPool::kAlignment);
  return out;
}

char* Filling::add_piece(const std::shared_ptr<Record>& record, std::size_t offset, std::size_t bytes) {
  char* to = static_cast<char*>(record->block.data()) + offset;
  if (staged_) {
    parts_.push_back({host_, to, bytes});
  } else {
    host_ = to;
  }
  transfer_->follow(std::static_pointer_cast<Transfer>(std::move(record->landing)));
  record->landing = transfer_;
  if (keeps(Edge::open_chunk_holds_records)) records_.push_back(record);
  used_ = bytes;
  return chunk_->base;
}

}  // namespace nntap::cuda
