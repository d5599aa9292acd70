#include "device/cuda/libcuda.hpp"

#include <dlfcn.h>

#include <string>

#include "support/error.hpp"

namespace nntap::cuda {
namespace {

struct Opened {
  Driver driver;
  bool found = false;
  std::string why_not;  // empty where the driver serves
};

template <typename Entry>
void find(void* library, const char* symbol, Entry& entry, std::string& missing) {
  entry = reinterpret_cast<Entry>(dlsym(library, symbol));
  if (entry == nullptr && missing.empty()) missing = symbol;
}

Opened open() {
  Opened opened;
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    opened.why_not = "libcuda.so.1 was not found: this machine has no NVIDIA driver, or it is not on the library path";
    return opened;
  }
  opened.found = true;
  std::string missing;
#define NNTAP_FIND(name, symbol, parameters) find(library, symbol, opened.driver.name, missing);
  NNTAP_CUDA_DRIVER(NNTAP_FIND)
#undef NNTAP_FIND
  opened.why_not = missing.empty()
                       ? start(opened.driver)
                       : text("libcuda.so.1 has no ", missing, ": update the NVIDIA driver to 525 or later");
  return opened;
}

const Opened& opened() {
  static const auto* once = new Opened(open());
  return *once;
}

}  // namespace

std::string start(const Driver& driver) {
  const Result started = driver.init(0);
  if (started == kNoDevice) return "the NVIDIA driver is installed, but it finds no GPU: see nvidia-smi";
  if (started != kSuccess) return text("the NVIDIA driver does not start (cuInit gave ", started, "): see nvidia-smi");
  int version = 0;
  if (driver.driver_version(&version) != kSuccess || version < kOldestDriver) {
    return text("the NVIDIA driver is for CUDA ", version / 1000, ".", version % 1000 / 10,
                ", and nntap needs one for CUDA 12.0, which is 525, or later: update the driver");
  }
  return {};
}

const Driver* libcuda() { return opened().why_not.empty() ? &opened().driver : nullptr; }

bool has_libcuda() { return opened().found; }

const char* why_no_libcuda() { return opened().why_not.empty() ? nullptr : opened().why_not.c_str(); }

}  // namespace nntap::cuda
