#pragma once

// The casts between floating-point types, once for each set of vector instructions.
//
// The sources of one set are compiled for it, and run only where the processor has it. So what they share with others
// must leave no function behind that the linker could give to those: templates over types of one source, no inline
// functions.

#include <cstdint>

#include "device/cpu/cast.hpp"

namespace nntap {

// A type of its own for each 16-bit float, so that overloads tell them apart.
struct Half {
  std::uint16_t bits;
};
struct BFloat {
  std::uint16_t bits;
};

/// Casts by the indices of their types: float64, float32, float16, bfloat16.
struct CastTable {
  CastFn casts[4][4];
};

extern const CastTable kPortableCasts;
#if defined(__x86_64__)
extern const CastTable kAvx2Casts;
extern const CastTable kAvx512Casts;
#endif

/// The table of a template `Cast<From, To>` with a function `run`. None casts a type to itself.
template <template <typename, typename> class Cast>
constexpr CastTable make_cast_table() {
  return {{
      {nullptr, Cast<double, float>::run, Cast<double, Half>::run, Cast<double, BFloat>::run},
      {Cast<float, double>::run, nullptr, Cast<float, Half>::run, Cast<float, BFloat>::run},
      {Cast<Half, double>::run, Cast<Half, float>::run, nullptr, Cast<Half, BFloat>::run},
      {Cast<BFloat, double>::run, Cast<BFloat, float>::run, Cast<BFloat, Half>::run, nullptr},
  }};
}

}  // namespace nntap
