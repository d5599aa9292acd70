#pragma once

// The calls of one module, and which output belongs to which inputs.

#include <cstddef>
#include <vector>

#include "python/python.hpp"

namespace nntap {

/// One call of a module. A slot is null until it is recorded, then a nest with tickets, and once somebody has read it a
/// nest with tensors.
struct Visit {
  Ref values[2];
  bool read[2] = {false, false};
};

/// One module's visits, by number from 0. A visit is open while its inputs are recorded and its output is still to
/// come, or never comes because the call raised. Guarded by the GIL; a reference to a visit lives until the next add().
class Visits {
 public:
  std::size_t size() const { return size_; }
  Visit& operator[](std::size_t i) { return i == 0 ? first_ : later_[i - 1]; }
  const Visit& operator[](std::size_t i) const { return i == 0 ? first_ : later_[i - 1]; }

  /// The number of a new one.
  std::size_t add();

  /// The number of a new one that waits for its output, from this thread.
  std::size_t open();

  /// The number of the visit whose output this thread has: the last it opened, or a new one where none is open.
  std::size_t close_last();

  /// The same, for the first that this thread opened from visit `since` on.
  std::size_t close_first(std::size_t since);

  /// Those that this thread opened from visit `since` on wait no longer.
  void abandon(std::size_t since);

 private:
  struct Open {
    unsigned long thread;
    std::size_t visit;
  };

  std::size_t close(std::vector<Open>::iterator open);

  std::size_t size_ = 0;
  Visit first_;  // inline: most modules are called once
  std::vector<Visit> later_;
  std::vector<Open> open_;  // oldest first
};

}  // namespace nntap
