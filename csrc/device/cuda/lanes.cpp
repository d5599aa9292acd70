#include "device/cuda/lanes.hpp"

#include <map>
#include <mutex>
#include <set>
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
  std::set<int> without_kernel;
};

Lanes& lanes() {
  static auto* all = new Lanes;
  return *all;
}

}  // namespace

std::shared_ptr<Lane> lane_of(const Platform& platform, int device, DLDevice as) {
  std::lock_guard<std::mutex> lock(lanes().mutex);
  if (lanes().without_kernel.count(device) > 0) return nullptr;
  auto& lane = lanes().by_device[device];
  try {
    if (lane == nullptr) lane = Lane::open(platform, device, as);
  } catch (const NoKernel&) {
    lanes().without_kernel.insert(device);
  }
  return lane;
}

std::vector<std::shared_ptr<Lane>> open_lanes() {
  if (forked()) return {};
  std::lock_guard<std::mutex> lock(lanes().mutex);
  std::vector<std::shared_ptr<Lane>> open;
  for (const auto& [device, lane] : lanes().by_device) {
    if (lane != nullptr) open.push_back(lane);
  }
  return open;
}

void close_lanes() {
  if (forked()) return;
  std::map<int, std::shared_ptr<Lane>> closing;
  {
    std::lock_guard<std::mutex> lock(lanes().mutex);
    closing.swap(lanes().by_device);
    lanes().without_kernel.clear();
  }
  for (const auto& [device, lane] : closing) {
    if (lane != nullptr) lane->drain();
  }
  if (!closing.empty()) PinnedPool::instance().detach();
  for (const auto& [device, lane] : closing) {
    if (lane != nullptr) lane->close();
  }
  PinnedPool::instance().quarantine().settle();  // no stream is left to wait for
}

}  // namespace nntap::cuda
