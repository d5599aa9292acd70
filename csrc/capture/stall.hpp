#pragma once

// What happens when host memory runs out in the middle of a forward.

#include <cstdint>

#include "copy/engine.hpp"

namespace nntap {

struct StallStats {
  std::uint64_t stalls = 0;
  std::uint64_t stall_ns = 0;
};

/// The longest one stall may last, in seconds. Throws InvalidArgument when negative or not a number.
void set_stall_patience(double seconds);
double stall_patience();

/// Places the snapshot, waiting for memory if it must: first collects garbage, then, while records of others exist and
/// another thread could drop them, waits with the GIL released. Throws HostMemoryError when nobody can free any, or
/// when patience is over; PythonErrorSet when the wait was interrupted. `own_bytes`: what the asking recorder holds.
void place_or_wait(Snapshot& snapshot, std::uint64_t own_bytes, StallStats& stats);

}  // namespace nntap
