#include "device/cuda/launcher.hpp"

#include "device/cuda/check.hpp"
#include "device/cuda/kernels/cubins.hpp"
#include "device/cuda/kernels/gather_job.hpp"

namespace nntap::cuda {
namespace {

// Whether the driver has no machine code for the GPU, and cannot compile the PTX: it is older than the PTX is, or comes
// without its compiler, as in some containers.
bool takes_no_image(Result loaded) {
  return loaded == kNoBinaryForGpu || loaded == kInvalidPtx || loaded == kJitCompilerNotFound ||
         loaded == kUnsupportedPtxVersion || loaded == kJitCompilationDisabled;
}

}  // namespace

Launcher::Launcher(const Driver& driver, DeviceId device) : driver_(driver) {
  int major = 0, minor = 0;
  check(driver, "cuDeviceGetAttribute", driver.device_attribute(&major, kAttributeMajor, device));
  check(driver, "cuDeviceGetAttribute", driver.device_attribute(&minor, kAttributeMinor, device));
  const char* newer = ptx_for(major, minor);
  const Cubin* cubin = best_cubin(major, minor);
  const void* image = cubin != nullptr ? cubin->data : newer;
  NNTAP_CHECK(image != nullptr, NoKernel, "this build has no kernel for a GPU of compute capability ", major, ".",
              minor, ": see nntap.build_info()['cuda_architectures']");
  Result loaded = driver.module_load(&module_, image);
  if (loaded == kNoBinaryForGpu && newer != nullptr) loaded = driver.module_load(&module_, newer);
  if (takes_no_image(loaded)) throw NoKernel("the driver takes no kernel of this build for this GPU");
  check(driver, "cuModuleLoadData", loaded);
  check(driver, "cuModuleGetFunction", driver.module_function(&gather_, module_, kGatherCastName));
}

void Launcher::launch(GatherBatch& batch, Stream stream) const {
  finish(batch);
  Result result = kSuccess;
  if (batch.blocks > 0) {
    void* parameters[] = {&batch};
    result = driver_.launch(gather_, static_cast<unsigned>(batch.blocks), 1, 1, kBlockThreads, 1, 1, 0, stream,
                            parameters, nullptr);
  }
  batch.jobs = 0;
  check(driver_, "cuLaunchKernel", result);
}

}  // namespace nntap::cuda
