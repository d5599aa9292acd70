#include "copy/dtype.hpp"

#include "support/error.hpp"

namespace nntap {

std::string name(DLDataType dtype) {
  if (dtype == kFloat64) return "float64";
  if (dtype == kFloat32) return "float32";
  if (dtype == kFloat16) return "float16";
  if (dtype == kBFloat16) return "bfloat16";
  if (dtype == kFloat8E4M3FN) return "float8_e4m3fn";
  if (dtype == kFloat8E5M2) return "float8_e5m2";
  return text("dlpack(code=", int{dtype.code}, ", bits=", int{dtype.bits}, ", lanes=", dtype.lanes, ")");
}

}  // namespace nntap
