#pragma once

#include <cstddef>

#include "device/cuda/driver.hpp"
#include "device/cuda/kernels/gather_cast.hpp"

namespace nntap::cuda {

/// The gather+cast kernel of one device. The device's context must be current in every call, the destructor's too.
class Launcher {
 public:
  /// Loads the kernel for the device's architecture. Throws CudaError.
  Launcher(const Driver& driver, DeviceId device);
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  /// One launch for all of the jobs; none for an empty batch. Empties it. Throws CudaError.
  void launch(GatherBatch& batch, Stream stream) const;

 private:
  const Driver& driver_;
  Module module_ = nullptr;  // goes with the context
  Function gather_ = nullptr;
};

}  // namespace nntap::cuda
