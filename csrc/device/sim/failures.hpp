#pragma once

// Which calls fail on request, and how many there were.

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "device/cuda/driver.hpp"

namespace nntap::sim {

enum class Entry {
#define NNTAP_ENTRY(name, symbol, parameters) name,
  NNTAP_CUDA_DRIVER(NNTAP_ENTRY)
#undef NNTAP_ENTRY
};

inline constexpr const char* kEntryNames[] = {
#define NNTAP_ENTRY(name, symbol, parameters) #name,
    NNTAP_CUDA_DRIVER(NNTAP_ENTRY)
#undef NNTAP_ENTRY
};
inline constexpr std::size_t kEntries = std::size(kEntryNames);

class Failures {
 public:
  /// The `nth` call from now on, counted from 1, fails. `for_good`: the device is lost from then on.
  void plan(Entry entry, std::uint64_t nth, cuda::Result result, bool for_good);

  /// Counts a call. What it must return without doing anything, if it is to fail.
  std::optional<cuda::Result> next(Entry entry);

  /// Whether the device is lost: every call that needs one fails, and what was under way never ends.
  bool lost() const { return lost_.has_value(); }

  std::uint64_t calls(Entry entry) const { return calls_[static_cast<std::size_t>(entry)]; }

 private:
  struct Plan {
    std::uint64_t call;
    cuda::Result result;
    bool for_good;
  };

  std::array<std::uint64_t, kEntries> calls_{};
  std::array<std::vector<Plan>, kEntries> plans_;
  std::optional<cuda::Result> lost_;
};

}  // namespace nntap::sim
