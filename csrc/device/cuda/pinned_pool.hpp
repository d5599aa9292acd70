#pragma once

// Pinned host memory: what a device copies into without the host's help.

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "copy/host_pool.hpp"
#include "device/cuda/driver.hpp"
#include "device/cuda/quarantine.hpp"

namespace nntap::cuda {

/// Slabs of touched pages, each registered with the driver for every context, in one call: the driver refuses a copy
/// that crosses from one registration into the next, whoever makes it. While no platform is attached they are ordinary
/// memory. In a forked process, where nothing is pinned any more, it leaves the driver alone, and its mutex, which a
/// thread of the parent may have held.
class PinnedSource final : public SlabSource {
 public:
  char* map(std::size_t bytes) noexcept override;
  void unmap(char* base, std::size_t bytes) noexcept override;
  bool maps_touched() const override { return true; }
  std::size_t most_at_once() const override;

  /// Registers all slabs with the platform, unless they are. Throws CudaError, NoPinnedMemory where the driver pins
  /// none here, and then none is registered.
  void attach(const Driver& driver, Context context);

  /// Takes the registrations back. No copy may be in flight.
  void detach() noexcept;

  /// What the driver has refused to pin, and more than that, it is not asked for again before some was given back, or
  /// ask_again(). Its last refusal, or kSuccess.
  Result refusal() const;
  void ask_again();

 private:
  struct Registration {
    char* base;
    std::size_t bytes;
  };
  bool refuses(std::size_t bytes) const;
  bool add(const Registration& slab) noexcept;
  void remove(char* base) noexcept;

  // With mutex_ held.
  Result try_a_page();
  Result register_with_driver(const Registration& slab);
  void unregister(const Registration& slab) noexcept;
  void forget_refusal();

  mutable std::mutex mutex_;
  const Driver* driver_ = nullptr;
  Context context_ = nullptr;
  std::vector<Registration> slabs_;
  Result refusal_ = kSuccess;
  std::size_t refused_bytes_ = SIZE_MAX;  // the least that was refused
};

/// The pinned memory of the process's records, with a thread that grows it ahead of need. One instance, never
/// destroyed.
class PinnedPool {
 public:
  static PinnedPool& instance();

  /// A block, or an empty one when the limit is reached or the system has no more. Throws CudaError.
  Block acquire(std::size_t bytes);

  /// A block of the memory that records pass through on their way to pageable memory; empty when all is in use.
  Block acquire_staging(std::size_t bytes);

  /// Pinned memory for that many bytes of records, now, waiting for the devices that may be at what has come back.
  /// False where the limit or the system does not allow it. The caller must not hold the GIL. Throws CudaError.
  bool reserve(std::size_t bytes);

  /// At most this much pinned memory; 0 removes the limit. Throws InvalidArgument below one slab.
  void set_limit(std::size_t bytes);

  /// Gives slabs without records back to the system, waiting for the devices that may be at them. Returns their bytes.
  /// The caller must not hold the GIL. Throws CudaError.
  std::size_t trim();
  bool can_fit(std::size_t bytes) const { return records_.can_fit(bytes); }
  HostPoolStats stats() const { return records_.stats(); }

  Quarantine& quarantine() { return quarantine_; }

  /// One of a platform's devices is there, or its last one gone. Throws CudaError, NoPinnedMemory where the driver does
  /// not pin even one staging slab.
  void attach(const Driver& driver, Context context);
  void detach();

  /// Ends the growing thread. Called before the interpreter goes.
  void stop();

 private:
  PinnedPool();
  bool has_staging();
  void grow_ahead(std::size_t bytes);
  void work();

  PinnedSource source_;
  HostPool records_, staging_;
  Quarantine quarantine_;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::thread grower_;
  std::size_t wanted_ = 0;  // bytes to have without records
  bool stopping_ = false, growing_ = false;
};

}  // namespace nntap::cuda
