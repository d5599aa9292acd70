#pragma once

#include <dlpack/dlpack.h>

#include <cstddef>
#include <memory>

#include "copy/device_memory.hpp"
#include "copy/host_pool.hpp"
#include "copy/landing.hpp"
#include "copy/layout.hpp"
#include "copy/tensor_view.hpp"

namespace nntap {

/// One recorded tensor. Its bytes never change once copied; shared by everything that recorded the same bytes and by
/// every torch tensor that views it. The memory goes back to its pool with the last of them, on whichever thread.
struct Record {
  TensorView source;  ///< what it was copied from; only its description is valid, the tensor may be gone
  Block block;        ///< where it lies, or
  DeviceMemory on_device;
  DLDevice device{kDLCPU, 0};  ///< of that memory
  DLDataType dtype{};
  Layout layout;
  std::size_t nbytes = 0;
  std::shared_ptr<Landing> landing;  ///< null once the bytes are known to be there; guarded by the GIL
  void* ticket = nullptr;  ///< borrowed: the one Python object that stands for this record; guarded by the GIL

  void* data() const { return on_device.data() != nullptr ? on_device.data() : block.data(); }
};

}  // namespace nntap
