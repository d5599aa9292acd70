#pragma once

// Everything of one CUDA device: its side stream, its chunks, and the records on their way to the host.

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "copy/layout.hpp"
#include "copy/record.hpp"
#include "device/cuda/chunk_ring.hpp"
#include "device/cuda/event_pool.hpp"
#include "device/cuda/filling.hpp"
#include "device/cuda/launcher.hpp"
#include "device/cuda/transfer.hpp"

namespace nntap::cuda {

/// A copy that a thread has enqueued.
struct Pending {
  std::shared_ptr<Lane> lane;
  std::shared_ptr<Record> record;
  GatherPlan plan;
  Stream stream;
  std::size_t placed = 0;  ///< bytes of a large record that are in chunks already
  bool staged = false;     ///< a large record's memory is pageable
};

struct LaneStats {
  std::size_t chunk_bytes = 0;
  std::size_t device_bytes = 0;       ///< of all chunks
  std::size_t peak_device_bytes = 0;  ///< the most that has been
  std::size_t copies = 0;             ///< to the host
  std::size_t bytes_copied = 0;
  std::size_t gpu_waits = 0;  ///< how often a compute stream waited for a chunk
};

/// One mutex guards everything but the waits for the device. The GIL lies outside of it: no Python runs under it, and
/// torch's allocator is called under it. Nothing here waits for the device but readers, and close().
///
/// Whatever fails between the first and the last step of a copy to the host, the driver or an allocation, its records
/// fail, and their readers are told. What can be allocated ahead is, so that nothing but the driver fails in between.
class Lane : public std::enable_shared_from_this<Lane> {
 public:
  /// Takes the device's primary context, which torch has made. `stream` is the current one. Throws CudaError, also
  /// where the stream is being captured into a graph; NoKernel and NoPinnedMemory where the device cannot be recorded
  /// on.
  static std::shared_ptr<Lane> open(const Platform& platform, int device, Stream stream);
  Lane(const Platform& platform, int device);
  ~Lane();

  int device() const { return device_; }

  /// Readies the lane for copies in the order of that stream. False where the device has no memory for chunks, if they
  /// are needed. Throws CudaError, also where the stream is being captured into a graph.
  bool prepare(Stream stream, bool needs_chunks);

  /// Gives the work from `next` on to the device, as far as it is of this lane and one stream; moves `next`. False when
  /// host memory ran out. Throws CudaError.
  bool submit(std::vector<Pending>& work, std::size_t& next);

  /// Enqueues the copies of all chunks that are being filled, but for those whose streams are being captured into a
  /// graph. Throws CudaError.
  void flush();

  /// For a reader: see Landing::wait().
  void wait_for(Transfer& transfer);

  /// For a copy thread: waits for the landing in staging memory, and then runs `copy`. False where it may still land.
  bool finish(Transfer& transfer, const std::shared_ptr<EventT>& landed, const std::function<void()>& copy) noexcept;

  /// Gives idle chunks back to torch. Returns their bytes. Throws CudaError.
  std::size_t trim();

  /// Brings everything in flight to its end, and takes no more.
  void drain() noexcept;

  /// drain(), and gives all that was taken back.
  void close() noexcept;

  LaneStats stats() const;

 private:
  class Batch;

  // With mutex_ held and the context current.
  bool place(Pending& item, Batch& batch);
  bool place_large(Pending& item, Batch& batch);
  Filling* filling_with_room(Stream stream, std::size_t bytes, Batch& batch);
  Filling* filling_on(Stream stream);
  Filling& open_filling(Stream stream, Block region, bool staged);
  void close_filling(Stream stream, Batch& batch);
  void flush(Filling& filling);
  bool flush_one();
  void enqueue_copy(Filling& filling);
  void put_back(Filling& filling);
  std::unique_ptr<Filling> take(Filling& filling);
  void abandon(Filling& filling, const char* error) noexcept;
  bool finish_all_of(Stream stream) const noexcept;

  // With mutex_ held.
  void flush_of(Transfer& transfer);
  void remember(const std::shared_ptr<Transfer>& transfer);
  void check_usable() const;
  static void check_not_failed(const Transfer& transfer);

  // Without; waiters_ counts the caller.
  void settle(Transfer& transfer, std::shared_ptr<EventT> landed, const std::function<void()>& copy) noexcept;

  void flush_or_fail() noexcept;
  void fail_all_open(const char* why) noexcept;

  const Driver& driver_;
  const int device_;
  DeviceId id_ = 0;
  Context context_ = nullptr;  // retained
  Stream side_ = nullptr;      // owned
  std::shared_ptr<EventPool> events_;
  std::shared_ptr<EventPool> staging_events_;  // those that copy threads wait for
  std::unique_ptr<Launcher> launcher_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  ChunkRing ring_;
  std::vector<std::unique_ptr<Filling>> fillings_;  // at most one a stream, the longest open first
  std::vector<std::weak_ptr<Transfer>> on_the_way_;
  std::size_t prune_at_ = 0;  // the size of on_the_way_ at which those that have landed are dropped from it
  Stream watched_ = nullptr;  // the stream that the quarantine was last told of
  bool watching_ = false;
  int waiters_ = 0;  // readers that wait for the device without the mutex
  bool closed_ = false;
  LaneStats stats_;
};

}  // namespace nntap::cuda
