#pragma once

#include <cstdint>

#include "copy/record.hpp"

namespace nntap {

/// What one recorder's copies came to.
struct CopyStats {
  std::uint64_t records = 0;         ///< tensors recorded through the engine, shared ones included
  std::uint64_t bytes_recorded = 0;  ///< their bytes, in the record's type
  std::uint64_t bytes_moved = 0;     ///< bytes written by copies
  std::uint64_t shared = 0;          ///< tensors that became an earlier record
  std::uint64_t bytes_shared = 0;
  std::uint64_t timed_bytes = 0;  ///< bytes of the copies that `copy_ns` counts: those large enough to time
  std::uint64_t copy_ns = 0;

  void count_shared(const Record& record);
  void count_copied(const Record& record);
};

}  // namespace nntap
