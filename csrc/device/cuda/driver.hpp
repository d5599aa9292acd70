#pragma once

// The one table through which all of CUDA goes. It is filled from libcuda.so.1 (libcuda.cpp) or from the simulated
// driver (device/sim). Declared here, because no CUDA header is needed or used; the names, values and signatures are
// those of the CUDA driver API. https://docs.nvidia.com/cuda/cuda-driver-api

#include <cstddef>
#include <cstdint>

#include "device/torch_services.hpp"

namespace nntap::cuda {

using Result = int;                  // CUresult
using DeviceId = int;                // CUdevice
using Context = struct ContextT*;    // CUcontext
using Stream = struct StreamT*;      // CUstream
using Event = struct EventT*;        // CUevent
using Module = struct ModuleT*;      // CUmodule
using Function = struct FunctionT*;  // CUfunction
using DevicePtr = std::uint64_t;     // CUdeviceptr

inline constexpr Result kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNotInitialized = 3, kDeinitialized = 4,
                        kNoDevice = 100, kInvalidContext = 201, kNoBinaryForGpu = 209, kInvalidPtx = 218,
                        kJitCompilerNotFound = 221, kUnsupportedPtxVersion = 222, kJitCompilationDisabled = 223,
                        kOperatingSystem = 304, kNotFound = 500, kNotReady = 600, kIllegalAddress = 700,
                        kHostMemoryAlreadyRegistered = 712, kLaunchFailed = 719, kNotPermitted = 800,
                        kNotSupported = 801, kCaptureImplicit = 906, kUnknown = 999;
inline constexpr unsigned kStreamNonBlocking = 1;     // CU_STREAM_NON_BLOCKING
inline constexpr unsigned kEventBlockingSync = 1;     // CU_EVENT_BLOCKING_SYNC
inline constexpr unsigned kEventDisableTiming = 2;    // CU_EVENT_DISABLE_TIMING
inline constexpr unsigned kHostRegisterPortable = 1;  // CU_MEMHOSTREGISTER_PORTABLE
inline constexpr int kStreamNotCapturing = 0;         // CU_STREAM_CAPTURE_STATUS_NONE
inline constexpr int kCaptureModeGlobal = 0;          // CU_STREAM_CAPTURE_MODE_GLOBAL, what a thread begins with
inline constexpr int kCaptureModeRelaxed = 2;         // CU_STREAM_CAPTURE_MODE_RELAXED
inline constexpr int kAttributeMajor = 75, kAttributeMinor = 76;

/// The entries, as X(name, exported symbol, parameters): one list for the table, the loader, the simulator and the
/// tests that make each of them fail.
#define NNTAP_CUDA_DRIVER(X)                                                                                   \
  X(init, "cuInit", (unsigned flags))                                                                          \
  X(driver_version, "cuDriverGetVersion", (int* version))                                                      \
  X(error_name, "cuGetErrorName", (Result error, const char** name))                                           \
  X(device_count, "cuDeviceGetCount", (int* count))                                                            \
  X(device_get, "cuDeviceGet", (DeviceId * device, int ordinal))                                               \
  X(device_name, "cuDeviceGetName", (char* name, int length, DeviceId device))                                 \
  X(device_attribute, "cuDeviceGetAttribute", (int* value, int attribute, DeviceId device))                    \
  X(primary_context_retain, "cuDevicePrimaryCtxRetain", (Context * context, DeviceId device))                  \
  X(primary_context_release, "cuDevicePrimaryCtxRelease_v2", (DeviceId device))                                \
  X(context_push, "cuCtxPushCurrent_v2", (Context context))                                                    \
  X(context_pop, "cuCtxPopCurrent_v2", (Context * context))                                                    \
  X(memory_info, "cuMemGetInfo_v2", (std::size_t* free, std::size_t* total))                                   \
  X(stream_create, "cuStreamCreate", (Stream * stream, unsigned flags))                                        \
  X(stream_destroy, "cuStreamDestroy_v2", (Stream stream))                                                     \
  X(stream_wait_event, "cuStreamWaitEvent", (Stream stream, Event event, unsigned flags))                      \
  X(stream_is_capturing, "cuStreamIsCapturing", (Stream stream, int* status))                                  \
  X(exchange_capture_mode, "cuThreadExchangeStreamCaptureMode", (int* mode))                                   \
  X(stream_synchronize, "cuStreamSynchronize", (Stream stream))                                                \
  X(event_create, "cuEventCreate", (Event * event, unsigned flags))                                            \
  X(event_destroy, "cuEventDestroy_v2", (Event event))                                                         \
  X(event_record, "cuEventRecord", (Event event, Stream stream))                                               \
  X(event_query, "cuEventQuery", (Event event))                                                                \
  X(event_synchronize, "cuEventSynchronize", (Event event))                                                    \
  X(copy_to_host, "cuMemcpyDtoHAsync_v2", (void* out, DevicePtr source, std::size_t bytes, Stream stream))     \
  X(host_register, "cuMemHostRegister_v2", (void* data, std::size_t bytes, unsigned flags))                    \
  X(host_unregister, "cuMemHostUnregister", (void* data))                                                      \
  X(module_load, "cuModuleLoadData", (Module * module, const void* image))                                     \
  X(module_function, "cuModuleGetFunction", (Function * function, Module module, const char* name))            \
  X(launch, "cuLaunchKernel",                                                                                  \
    (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, \
     unsigned block_z, unsigned shared_bytes, Stream stream, void** parameters, void** extra))

struct Driver {
#define NNTAP_ENTRY(name, symbol, parameters) Result(*name) parameters = nullptr;
  NNTAP_CUDA_DRIVER(NNTAP_ENTRY)
#undef NNTAP_ENTRY
};

/// Where tensors of the CUDA device come from: the real thing, or the simulator with CPU tensors that play device ones.
struct Platform {
  const Driver* driver = nullptr;

  /// The device number of a tensor's memory, given what DLPack says of it, or -1: not this platform's.
  int (*device_of)(int dl_device_type, int dl_device_id, const void* data) = nullptr;

  /// The stream that torch's operations of this thread go to now. 0 on success.
  int (*current_stream)(int device, Stream* stream) = nullptr;

  /// Memory of the device, in the order of its current stream; empty where there is none.
  DeviceMemory (*allocate)(int device, std::size_t bytes) noexcept = nullptr;
};

}  // namespace nntap::cuda
