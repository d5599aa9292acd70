#include "device/cuda/cuda_device.hpp"

#include <algorithm>
#include <vector>

#include "device/cuda/kernels/gather_job.hpp"
#include "device/cuda/lanes.hpp"
#include "device/cuda/pinned_pool.hpp"
#include "device/cuda/platform.hpp"
#include "device/cuda/staging.hpp"
#include "support/error.hpp"

namespace nntap::cuda {
namespace {

constexpr const char* kNoDeviceMemory = "no device memory left";

// What this thread has enqueued and not submitted.
struct Queue {
  std::vector<Pending> work;
  std::size_t next = 0;
};

Queue& queue() {
  thread_local Queue mine;
  return mine;
}

class CudaDevice final : public AsynchronousDevice {
 public:
  const char* name() const override { return "cuda"; }

  bool owns(const TensorView& source) const override {
    const DLDevice device = source.device;
    if (const Platform* simulated = simulated_platform()) {
      return simulated->device_of(device.device_type, device.device_id, source.data) >= 0;
    }
    return device.device_type == kDLCUDA && platform() != nullptr;
  }

  bool can_cast(DLDataType from, DLDataType to) const override { return can_convert(from, to); }

  const char* enqueue(std::shared_ptr<Record> record, const GatherPlan& plan, bool on_device) const override {
    NNTAP_CHECK(!forked(), CudaError,
                "this process was forked from one that uses CUDA, which does not work in it: start processes with "
                "multiprocessing's 'spawn'");
    if (plan.numel == 0) return take_nothing(*record, on_device);
    const TensorView& source = record->source;
    const Platform& now = *platform();
    const int device = now.device_of(source.device.device_type, source.device.device_id, source.data);
    Stream stream = nullptr;
    NNTAP_CHECK(now.current_stream(device, &stream) == 0, CudaError, "torch has no current stream for device ", device);
    auto [lane, why_not] = lane_of(now, device, stream);
    if (lane == nullptr) return why_not;
    if (!lane->prepare(stream, !on_device)) return kNoDeviceMemory;
    if (on_device) {
      record->on_device = now.allocate(device, record->nbytes);
      if (record->on_device.data() == nullptr) return kNoDeviceMemory;
      record->device = source.device;
    }
    queue().work.push_back({std::move(lane), std::move(record), plan, stream});
    return nullptr;
  }

  bool submit() const override {
    Queue& mine = queue();
    try {
      while (mine.next < mine.work.size()) {
        const auto lane = mine.work[mine.next].lane;
        if (!lane->submit(mine.work, mine.next)) return false;
      }
    } catch (...) {
      discard();
      throw;
    }
    discard();
    return true;
  }

  void discard() const noexcept override {
    queue().work.clear();
    queue().next = 0;
  }

  std::size_t bytes_wanted() const override {
    const Queue& mine = queue();
    return mine.next < mine.work.size() ? mine.work[mine.next].record->nbytes : 0;
  }

  bool can_fit(std::size_t bytes) const override {
    return PinnedPool::instance().can_fit(bytes) || HostPool::instance().can_fit(bytes);
  }

  std::size_t host_bytes_in_use() const override {
    return HostPool::instance().stats().used_bytes + PinnedPool::instance().stats().used_bytes;
  }

  bool frees_memory() const override { return Staging::instance().busy(); }

  void wait_for_memory(std::chrono::milliseconds patience) const override {
    if (Staging::instance().busy()) return Staging::instance().wait(patience);
    HostPool::instance().wait_for_return(patience);
  }

  void flush() const override {
    for (const auto& lane : open_lanes()) lane->flush();
  }

 private:
  static const char* take_nothing(Record& record, bool on_device) {
    if (on_device) return "empty tensor on a device";
    record.block = HostPool::instance().acquire(0);
    return record.block.data() == nullptr ? "no host memory left" : nullptr;
  }
};

}  // namespace

const AsynchronousDevice& cuda_device() {
  static const CudaDevice device;
  return device;
}

}  // namespace nntap::cuda
