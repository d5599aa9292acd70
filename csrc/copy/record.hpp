#pragma once

#include <dlpack/dlpack.h>

#include <cstddef>

#include "copy/host_pool.hpp"
#include "copy/layout.hpp"
#include "copy/tensor_view.hpp"

namespace nntap {

/// One recorded tensor. Its bytes never change once copied; shared by everything that recorded the same bytes and by
/// every torch tensor that views it. The memory goes back to its pool with the last of them, on whichever thread.
struct Record {
  TensorView source;  ///< what it was copied from; only its description is valid, the tensor may be gone
  Block block;
  DLDataType dtype{};
  Layout layout;
  std::size_t nbytes = 0;
  void* ticket = nullptr;  ///< borrowed: the one Python object that stands for this record; guarded by the GIL
};

}  // namespace nntap
