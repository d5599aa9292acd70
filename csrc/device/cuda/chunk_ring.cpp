#include "device/cuda/chunk_ring.hpp"

#include <algorithm>

#include "device/cuda/check.hpp"
#include "device/cuda/edges.hpp"
#include "device/cuda/settings.hpp"

namespace nntap::cuda {
namespace {

constexpr std::size_t kSmallestChunk = std::size_t{512} << 10;
constexpr std::size_t kSmaller = 4;  // by what the size is divided where there is no room
constexpr std::size_t kFewChunks = 4;
constexpr std::size_t kPlenty = 32;  // chunks that must be free for one more
constexpr auto kTryAgainAfter = std::chrono::seconds(1);

std::size_t wanted_chunk_bytes() { return std::min(settings.chunk_bytes.load(), settings.device_bytes.load()); }

}  // namespace

void Refusal::note() {
  is_noted_ = true;
  at_ = std::chrono::steady_clock::now();
}

bool Refusal::is_fresh() const { return is_noted_ && std::chrono::steady_clock::now() - at_ < kTryAgainAfter; }

ChunkRing::ChunkRing(const Platform& platform, int device)
    : platform_(platform), driver_(*platform.driver), device_(device) {}

bool ChunkRing::prepare(Stream stream) {
  if (count_ > 0) follow_settings();
  return count_ > 0 || first(stream);
}

void ChunkRing::follow_settings() {
  const std::size_t wanted = wanted_chunk_bytes();
  const bool resize = chunk_bytes_ > wanted || should_be_larger(wanted);
  const std::size_t most = resize ? 0 : settings.device_bytes / chunk_bytes_;
  while (count_ > most && pop_landed() != nullptr) continue;
}

bool ChunkRing::should_be_larger(std::size_t wanted) const {
  if (chunk_bytes_ >= wanted || idle_.size() < count_ || no_room_.is_fresh()) return false;
  return std::all_of(idle_.begin(), idle_.end(), [&](const auto& chunk) { return landed(*chunk); });
}

bool ChunkRing::first(Stream stream) {
  if (no_room_.is_fresh()) return false;
  const std::size_t before = chunk_bytes_, wanted = wanted_chunk_bytes();
  for (chunk_bytes_ = wanted; chunk_bytes_ >= std::min(wanted, kSmallestChunk); chunk_bytes_ /= kSmaller) {
    if (auto chunk = allocate(stream)) {
      idle_.push_back(std::move(chunk));
      return true;
    }
    no_room_.note();
  }
  chunk_bytes_ = before;
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
    full_.forget();
  }
}

void ChunkRing::put(std::unique_ptr<Chunk> chunk) { idle_.push_back(std::move(chunk)); }

std::vector<std::unique_ptr<Chunk>> ChunkRing::take_landed() {
  std::vector<std::unique_ptr<Chunk>> taken;
  while (auto chunk = pop_landed()) taken.push_back(std::move(chunk));
  no_room_.forget();
  full_.forget();
  return taken;
}

// Null where there is none.
std::unique_ptr<Chunk> ChunkRing::pop_landed() {
  if (idle_.empty() || !landed(*idle_.front())) return nullptr;
  auto chunk = std::move(idle_.front());
  idle_.pop_front();
  --count_;
  return chunk;
}

bool ChunkRing::landed(const Chunk& chunk) const {
  if (chunk.landed == nullptr) return true;
  const Result result = driver_.event_query(chunk.landed.get());
  if (result != kNotReady) check(driver_, "cuEventQuery", result);
  return result == kSuccess;
}

// Past the first chunks only while the device has plenty left: the model may need it later, and the link is no slower
// with a few.
bool ChunkRing::may_grow() {
  if (count_ == 0) return true;  // somebody gave them back after prepare()
  if ((count_ + 1) * chunk_bytes_ > settings.device_bytes || full_.is_fresh()) return false;
  if (count_ < kFewChunks || has_plenty()) return true;
  full_.note();
  return false;
}

// What torch keeps for later is not seen. Where the driver does not say, there is none.
bool ChunkRing::has_plenty() const {
  std::size_t free = 0, total = 0;
  return driver_.memory_info(&free, &total) == kSuccess && free / kPlenty >= chunk_bytes_;
}

std::unique_ptr<Chunk> ChunkRing::grow(Stream stream) {
  if (!may_grow()) return nullptr;
  auto chunk = allocate(stream);
  if (chunk == nullptr) full_.note();
  return chunk;
}

std::unique_ptr<Chunk> ChunkRing::allocate(Stream stream) {
  auto chunk = std::make_unique<Chunk>();
  chunk->memory = platform_.allocate(device_, chunk_bytes_);
  if (chunk->memory.data() == nullptr) return nullptr;
  chunk->base = static_cast<char*>(chunk->memory.data());
  chunk->bytes = chunk_bytes_;
  chunk->home = stream;
  ++count_;
  peak_bytes_ = std::max(peak_bytes_, bytes());
  return chunk;
}

}  // namespace nntap::cuda
