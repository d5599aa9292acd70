#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <vector>

#include "device/cuda/event_pool.hpp"
#include "device/torch_services.hpp"

namespace nntap::cuda {

/// A piece of device memory that activations are gathered into.
struct Chunk {
  DeviceMemory memory;
  char* base = nullptr;
  std::size_t bytes = 0;
  Stream home = nullptr;           ///< in whose order torch's allocator gave it
  std::shared_ptr<EventT> landed;  ///< behind its last copy to the host; null: never copied from
};

/// That a device had no room for something, which it is not asked for again for a while: every refusal makes torch give
/// up what it keeps for later.
class Refusal {
 public:
  void note();
  void forget() { is_noted_ = false; }

  /// Whether it was noted within the last second.
  bool is_fresh() const;

 private:
  bool is_noted_ = false;
  std::chrono::steady_clock::time_point at_;
};

/// The chunks of one device, from torch's allocator, used one after the other, all of one size. Guarded by its lane's
/// mutex, with the device's context current.
class ChunkRing {
 public:
  ChunkRing(const Platform& platform, int device);

  /// Makes sure that there is a chunk, of the settings' size or, where that is more than all chunks may take or the
  /// device has no room for it, a smaller one. False where it has no room at all. Where the settings have become
  /// smaller since, gives back the chunks too many, or too large, that have landed; where chunks are smaller than they
  /// should be, tries again from time to time, once all are idle. `stream` is the current one.
  bool prepare(Stream stream);

  /// The size of every chunk; valid after prepare().
  std::size_t chunk_bytes() const { return chunk_bytes_; }

  /// A chunk that the stream may fill: one whose copy has landed, else a new one, else, up to the limit, the one whose
  /// copy began first; the stream, the current one, then waits for that copy, on the device. Null when there is none
  /// that is not being filled.
  std::unique_ptr<Chunk> take(Stream stream);

  /// Takes a chunk back, with the event behind its copy.
  void put(std::unique_ptr<Chunk> chunk);

  /// Takes out the chunks whose copies have landed, for the caller to give back to torch.
  std::vector<std::unique_ptr<Chunk>> take_landed();

  /// Gives all chunks back to torch. No copy may be in flight.
  void clear() { idle_.clear(); }

  /// How often take() made a stream wait.
  std::size_t gpu_waits() const { return gpu_waits_; }

  /// Bytes of all chunks, those being filled included.
  std::size_t bytes() const { return count_ * chunk_bytes_; }
  std::size_t peak_bytes() const { return peak_bytes_; }

 private:
  void follow_settings();
  bool first(Stream stream);
  bool should_be_larger(std::size_t wanted) const;
  bool landed(const Chunk& chunk) const;
  std::unique_ptr<Chunk> pop_landed();
  bool may_grow();
  bool has_plenty() const;
  void drop_fresh_of_others(Stream stream);
  std::unique_ptr<Chunk> allocate(Stream stream);
  std::unique_ptr<Chunk> grow(Stream stream);

  const Platform& platform_;
  const Driver& driver_;
  int device_;
  std::size_t chunk_bytes_ = 0;
  std::size_t count_ = 0;
  std::size_t peak_bytes_ = 0;
  std::size_t gpu_waits_ = 0;
  Refusal no_room_;                          // for a first chunk of the size that the settings ask for
  Refusal full_;                             // for one more
  std::deque<std::unique_ptr<Chunk>> idle_;  // by the begin of their copies, oldest first
};

}  // namespace nntap::cuda
