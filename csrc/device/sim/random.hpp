#pragma once

#include <cstdint>
#include <random>

namespace nntap::sim {

/// Numbers that depend on the seed alone, on every machine: the standard distributions do not promise that.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  /// From 0 to `bound` - 1; `bound` is at least 1.
  std::uint64_t below(std::uint64_t bound) { return engine_() % bound; }
  bool one_in(std::uint64_t chances) { return below(chances) == 0; }

 private:
  std::mt19937_64 engine_;
};

}  // namespace nntap::sim
