#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "copy/host_pool.hpp"
#include "copy/record.hpp"
#include "device/cuda/chunk_ring.hpp"
#include "device/cuda/transfer.hpp"

namespace nntap::cuda {

/// Bytes that a copy thread brings from staging memory to where they belong.
struct Part {
  const char* from;
  char* to;
  std::size_t bytes;
};

/// A chunk that is being filled on one stream, and where its bytes go. Guarded by its lane's mutex.
///
/// Records of a chunk lie in one pinned region, in the same order, so that one copy carries them all; a piece of a
/// large record goes to the record's own memory. Where pinned memory has run out, the region is staging memory, and
/// records have pageable memory of their own.
class Filling {
 public:
  /// The chunk is put into it afterwards: once it is taken nothing may fail that would free it.
  Filling(Stream stream, std::shared_ptr<Transfer> transfer, Block region, bool staged);

  std::size_t room() const { return chunk_->bytes - used_; }
  bool empty() const { return used_ == 0; }
  Stream stream() const { return stream_; }
  const std::shared_ptr<Transfer>& transfer() const { return transfer_; }

  /// Room for a whole record, which must fit. Returns where in the chunk its bytes go, or null when there is no
  /// pageable memory for it.
  char* add(const std::shared_ptr<Record>& record);

  /// The chunk, from its beginning, for a piece of a record that has its memory.
  char* add_piece(const std::shared_ptr<Record>& record, std::size_t offset, std::size_t bytes);

 private:
  friend class Lane;

  std::unique_ptr<Chunk> chunk_;
  Stream stream_;
  std::shared_ptr<Transfer> transfer_;
  Block region_;  // what is left of it; all of it where it is staging memory
  bool staged_;
  char* host_;  // where the chunk's first byte goes
  std::size_t used_ = 0;
  std::vector<Part> parts_;                       // where staged
  std::vector<std::shared_ptr<Record>> records_;  // holds their memory until the copy into it is enqueued
};

}  // namespace nntap::cuda
