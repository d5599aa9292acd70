#include "device/cpu/cast.hpp"

#include "copy/dtype.hpp"
#include "device/cpu/cast_table.hpp"
#include "device/cpu/features.hpp"

namespace nntap {
namespace {

// Where a table has that type, or -1.
int index_of(DLDataType type) {
  constexpr DLDataType kTypes[] = {kFloat64, kFloat32, kFloat16, kBFloat16};
  for (int i = 0; i < 4; ++i) {
    if (type == kTypes[i]) return i;
  }
  return -1;
}

std::vector<CastFlavour> find_flavours() {
  std::vector<CastFlavour> found;
#if defined(__x86_64__)
  if (cpu_features().avx512) found.push_back({"avx512", &kAvx512Casts});
  if (cpu_features().avx2) found.push_back({"avx2+f16c", &kAvx2Casts});
#endif
#if defined(__aarch64__)
  found.push_back({"neon", &kPortableCasts});  // every aarch64 processor has it, and the compiler uses it
#else
  found.push_back({"portable", &kPortableCasts});
#endif
  return found;
}

}  // namespace

CastFn CastFlavour::find(DLDataType from, DLDataType to) const {
  const int row = index_of(from), column = index_of(to);
  return row < 0 || column < 0 ? nullptr : table->casts[row][column];
}

const std::vector<CastFlavour>& cast_flavours() {
  static const std::vector<CastFlavour> flavours = find_flavours();
  return flavours;
}

CastFn find_cast(DLDataType from, DLDataType to) {
  static const CastFlavour fastest = cast_flavours().front();
  return fastest.find(from, to);
}

}  // namespace nntap
