#pragma once

// What happens when host memory runs out in the middle of a forward.

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace nntap {

struct StallStats {
  std::uint64_t stalls = 0;
  std::uint64_t stall_ns = 0;
};

/// Somebody who needs host memory.
class MemoryRequest {
 public:
  virtual ~MemoryRequest() = default;

  /// Tries to get it. False when there is none; may be called again.
  virtual bool place() = 0;

  /// What is asked for.
  virtual std::size_t bytes() const = 0;

  /// Whether that much may be had at all, were no record there.
  virtual bool can_fit() const = 0;

  /// What all records hold of the memory that would do, and what those of the asking recorder do.
  virtual std::size_t bytes_in_use() const = 0;
  virtual std::size_t own_bytes() const = 0;

  /// Whether memory will come free on its own, whoever drops records or not.
  virtual bool comes_free() const { return false; }

  /// Waits until some may be there, or `patience` is over. Called without the GIL.
  virtual void wait(std::chrono::milliseconds patience) = 0;

  /// Around a stall, in which other threads run: what is to be recorded must be the same afterwards. The second throws.
  virtual void begin_stall() = 0;
  virtual void end_stall() const = 0;
};

/// The longest one stall may last, in seconds. Throws InvalidArgument when negative or not a number.
void set_stall_patience(double seconds);
double stall_patience();

/// Places the request, waiting for memory if it must: while records of others exist and another thread could drop them,
/// waits with the GIL released; once in a stall, early on or before it gives up, collects garbage. Throws
/// HostMemoryError when the limit is below the request, when nobody can free any, when patience is over, or when what
/// is to be recorded was changed meanwhile; PythonErrorSet when the wait was interrupted. While copies under way will
/// free some, patience is not looked at.
void place_or_wait(MemoryRequest& request, StallStats& stats);

}  // namespace nntap
