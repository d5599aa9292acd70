#include "device/cuda/lanes.hpp"

#include <map>
#include <mutex>
#include <utility>

#include "device/cuda/pinned_pool.hpp"
#include "device/cuda/platform.hpp"
#include "support/error.hpp"

namespace nntap::cuda {
namespace {

// Never destroyed: threads may record until the process is gone.
struct Lanes {
  std::mutex mutex;
  std::map<int, std::shared_ptr<Lane>> by_device;
  std::map<int, const char*> refused;  // by device, and why
};

Lanes& lanes() {
  static auto* all = new Lanes;
  return *all;
}

}  // namespace

FoundLane lane_of(const Platform& platform, int device, Stream stream) {
  std::lock_guard<std::mutex> lock(lanes().mutex);
  const auto refused = lanes().refused.find(device);
  if (refused != lanes().refused.end()) return {nullptr, refused->second};
  const auto known = lanes().by_device.find(device);
  if (known != lanes().by_device.end()) return {known->second};
  try {
    return {lanes().by_device[device] = Lane::open(platform, device, stream)};
  } catch (const NoKernel&) {
    return {nullptr, lanes().refused[device] = "no kernel for this GPU"};
  } catch (const NoPinnedMemory&) {
    return {nullptr, lanes().refused[device] = "no pinned memory to be had"};
  }
}

std::vector<std::shared_ptr<Lane>> open_lanes() {
  if (forked()) return {};
  std::lock_guard<std::mutex> lock(lanes().mutex);
  std::vector<std::shared_ptr<Lane>> open;
  for (const auto& [device, lane] : lanes().by_device) open.push_back(lane);
  return open;
}

void close_lanes() {
  if (forked()) return;
  std::map<int, std::shared_ptr<Lane>> closing;
  {
    std::lock_guard<std::mutex> lock(lanes().mutex);
    closing.swap(lanes().by_device);
    lanes().refused.clear();
  }
  for (const auto& [device, lane] : closing) lane->drain();
  if (!closing.empty()) PinnedPool::instance().detach();
  for (const auto& [device, lane] : closing) lane->close();
  PinnedPool::instance().quarantine().settle();  // no stream is left to wait for
}

}  // namespace nntap::cuda
