#pragma once

#include <dlpack/dlpack.h>

#include "copy/layout.hpp"

namespace nntap {

/// A tensor somebody else owns, valid only while the caller keeps it alive.
struct TensorView {
  const void* data = nullptr;
  DLDevice device{};
  DLDataType dtype{};
  Layout layout;
};

}  // namespace nntap
