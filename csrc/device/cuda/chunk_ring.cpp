#include "device/cuda/chunk_ring.hpp"

#include <algorithm>

#include "device/cuda/check.hpp"
#include "device/cuda/edges.hpp"
#include "device/cuda/settings.hpp"

namespace nntap::cuda {
namespace {

constexpr std::size_t kSmallestChunk = std::size_t{512} << 10;
constexpr std::size_t kFewChunks = 4;
constexpr std::size_t kPlenty = 32;  // chunks that must be free for one more
constexpr auto kTryAgainAfter = std::chrono::seconds(1);

}  // namespace

ChunkRing::ChunkRing(const Platform& platform, int device)
    : platform_(platform), driver_(*platform.driver), device_(device) {}

bool ChunkRing::prepare(Stream stream) {
  if (count_ > 0 && should_be_larger()) take_landed();
  return count_ > 0 || first(stream);
}

bool ChunkRing::should_be_larger() {
  if (chunk_bytes_ >= wanted_bytes_ || idle_.size() < count_) return false;
  const auto now = std::chrono::steady_clock::now();
  if (now - chosen_at_ < kTryAgainAfter) return false;
  chosen_at_ = now;
  return std::all_of(idle_.begin(), idle_.end(), [&](const auto& chunk) { return landed(*chunk); });
}

bool ChunkRing::first(Stream stream) {
  wanted_bytes_ = std::min(settings.chunk_bytes.load(), settings.device_bytes.load());
  chosen_at_ = std::chrono::steady_clock::now();
  for (std::size_t bytes = wanted_bytes_; bytes >= std::min(wanted_bytes_, kSmallestChunk); bytes /= 2) {
    if (auto chunk = allocate(bytes, stream)) {
      chunk_bytes_ = bytes;
      idle_.push_back(std::move(chunk));
      return true;
    }
  }
  return false;
}

std::unique_ptr<Chunk> ChunkRing::take(Stream stream) {
  drop_fresh_of_others(stream);
  const bool ready = !idle_.empty() && landed(*idle_.front());
  if (!ready) {
    if (auto chunk = grow(stream)) return chunk;
    if (idle_.empty()) return nullptr;
  }
  Chunk& next = *idle_.front();
  if (!ready && keeps(Edge::gathers_wait_for_chunk)) {
    check(driver_, "cuStreamWaitEvent", driver_.stream_wait_event(stream, next.landed.get(), 0));
  }
  gpu_waits_ += ready ? 0 : 1;
  auto chunk = std::move(idle_.front());
  idle_.pop_front();
  return chunk;
}

// Work that was enqueued on its home stream before may still be at the memory of a chunk that was never filled.
void ChunkRing::drop_fresh_of_others(Stream stream) {
  if (!keeps(Edge::fresh_chunk_keeps_stream)) return;
  while (!idle_.empty() && idle_.front()->landed == nullptr && idle_.front()->home != stream) {
    idle_.pop_front();
    --count_;
    full_ = false;
  }
}

void ChunkRing::put(std::unique_ptr<Chunk> chunk) { idle_.push_back(std::move(chunk)); }

std::vector<std::unique_ptr<Chunk>> ChunkRing::take_landed() {
  std::vector<std::unique_ptr<Chunk>> taken;
  while (!idle_.empty() && landed(*idle_.front())) {
    taken.push_back(std::move(idle_.front()));
    idle_.pop_front();
    --count_;
  }
  full_ = false;
  return taken;
}

bool ChunkRing::landed(const Chunk& chunk) const {
  if (chunk.landed == nullptr) return true;
  const Result result = driver_.event_query(chunk.landed.get());
  if (result != kNotReady) check(driver_, "cuEventQuery", result);
  return result == kSuccess;
}

// Past the first chunks only while the device has plenty left: the model may need it later, and the link is no slower
// with a few.
bool ChunkRing::may_grow() const {
  if (full_ || (count_ + 1) * chunk_bytes_ > settings.device_bytes) return false;
  if (count_ < kFewChunks) return true;
  std::size_t free = 0, total = 0;
  check(driver_, "cuMemGetInfo", driver_.memory_info(&free, &total));
  return free / kPlenty >= chunk_bytes_;
}

std::unique_ptr<Chunk> ChunkRing::grow(Stream stream) {
  if (!may_grow()) return nullptr;
  auto chunk = allocate(chunk_bytes_, stream);
  full_ = chunk == nullptr;
  return chunk;
}

std::unique_ptr<Chunk> ChunkRing::allocate(std::size_t bytes, Stream stream) {
  auto chunk = std::make_unique<Chunk>();
  chunk->memory = platform_.allocate(device_, bytes);
  if (chunk->memory.data() == nullptr) return nullptr;
  chunk->base = static_cast<char*>(chunk->memory.data());
  chunk->bytes = bytes;
  chunk->home = stream;
  ++count_;
  peak_bytes_ = std::max(peak_bytes_, count_ * std::max(bytes, chunk_bytes_));
  return chunk;
}

}  // namespace nntap::cuda
