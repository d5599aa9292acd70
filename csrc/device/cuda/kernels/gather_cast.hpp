#pragma once

// What one launch of the gather+cast kernel is given. Plain data, the same on host and device, at most 4 KiB: kernel
// parameters of every architecture. Compiled by NVRTC too: no standard headers beyond fixed-width integers.

#ifdef __CUDACC_RTC__
namespace nntap::cuda {
using i64 = long long;
using u8 = unsigned char;
#else
#include <cstdint>
namespace nntap::cuda {
using i64 = std::int64_t;
using u8 = std::uint8_t;
#endif

/// What an element becomes. kCopy moves `item` bytes as they are.
enum class Element : u8 { kCopy, kF64, kF32, kF16, kBF16, kF8E4M3FN, kF8E5M2 };

inline constexpr int kGatherDims = 8;
inline constexpr int kMaxJobs = 16;
inline constexpr int kBlockThreads = 256;

/// Elements [first, first + count) of a gather: in the plan's order, last dimension fastest, written one after the
/// other from `out` on.
struct GatherJob {
  const void* source;  ///< the tensor's first element
  void* out;           ///< where element `first` goes; aligned to 16 bytes
  i64 first;
  i64 count;
  i64 shape[kGatherDims];
  i64 strides[kGatherDims];  ///< in elements
  int ndim;                  ///< 0 or flat: shape[0] == numel, strides[0] == 1
  int first_block;           ///< blocks [first_block, next job's first_block) of the grid work on this job
  Element from, to;          ///< both kCopy, or both a float type
  u8 item;                   ///< bytes of a source element: 1, 2, 4, 8 or 16
};

struct GatherBatch {
  int jobs;
  int blocks;  ///< the grid
  GatherJob job[kMaxJobs];
};

static_assert(sizeof(GatherBatch) <= 4096, "kernel parameters are limited to 4 KiB");

}  // namespace nntap::cuda
