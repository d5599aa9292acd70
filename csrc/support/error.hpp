#pragma once

// The exceptions of the core. Each maps to one Python class, in python/python_error.cpp and nowhere else.

#include <sstream>
#include <stdexcept>
#include <string>

namespace nntap {

/// The user gave something that is not allowed: ValueError.
struct InvalidArgument : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Host memory ran out, or its limit was reached and nobody can free any: nntap.HostMemoryError.
struct HostMemoryError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The CUDA driver refused something, or recording is not possible in the state it is in: nntap.CudaError.
struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The GPU is older than every kernel of this build: torch records its tensors.
struct NoKernel : CudaError {
  using CudaError::CudaError;
};

/// The driver does not pin host memory here: torch records the tensors.
struct NoPinnedMemory : CudaError {
  using CudaError::CudaError;
};

/// A Python exception is already set and travels through C++ code.
struct PythonErrorSet {};

/// The text of all parts, one after the other. Only built when something failed.
template <typename... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace nntap

/// Throws `Error` with the text of the parts after it unless `condition` holds.
#define NNTAP_CHECK(condition, Error, ...)                     \
  do {                                                         \
    if (!(condition)) throw Error(::nntap::text(__VA_ARGS__)); \
  } while (false)
