#pragma once

// What one launch of the gather+cast kernel is given. Plain data, the same on host and device, at most 4 KiB: kernel
// parameters of every architecture.

#include "device/cuda/kernels/portable.hpp"

namespace nntap::cuda {

/// What the kernel is called in the module.
inline constexpr const char* kGatherCastName = "nntap_gather_cast";

/// What an element is. kCopy moves `item` bytes as they are.
enum class Element : u8 { kCopy, kF64, kF32, kF16, kBF16, kF8E4M3FN, kF8E5M2 };

inline constexpr int kGatherDims = 8;
inline constexpr int kMaxJobs = 16;

// A block has kBlockThreads threads, each of which writes kThreadVectors vectors. A vector is 16 bytes of a copy, or
// kCastLanes elements of a cast.
inline constexpr int kBlockThreads = 256;
inline constexpr int kThreadVectors = 4;
inline constexpr int kBlockVectors = kBlockThreads * kThreadVectors;
inline constexpr int kCastLanes = 4;

/// Elements [first, first + count) of a gather: in the plan's order, last dimension fastest, written one after the
/// other from `out` on.
struct GatherJob {
  const void* source;  ///< the tensor's first element
  void* out;           ///< where element `first` goes; aligned to 16 bytes
  i64 first;
  i64 count;
  i64 shape[kGatherDims];
  i64 strides[kGatherDims];  ///< in elements
  int ndim;                  ///< at least 1; flat: 1, and strides[0] == 1
  int first_block;           ///< blocks [first_block, next job's first_block) of the grid work on this job
  Element from, to;          ///< both kCopy, or both a float type
  u8 item;                   ///< bytes of a source element: 1, 2, 4, 8 or 16
  u8 lanes;                  ///< elements of a vector: 16 / item of a copy, kCastLanes of a cast
  u16 overflow;              ///< of a cast to F16 or smaller: the magnitude's bits that everything too large becomes
  bool wide;                 ///< the whole gather has 2^31 elements or more: indices need 64 bits
};

struct GatherBatch {
  int jobs;
  int blocks;  ///< the grid
  GatherJob job[kMaxJobs];
};

static_assert(sizeof(GatherBatch) <= 4096, "kernel parameters are limited to 4 KiB");

}  // namespace nntap::cuda
