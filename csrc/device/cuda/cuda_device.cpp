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

const char* take_nothing(Record& record, bool on_device) {
  if (on_device) return "empty tensor on a device";
  record.block = HostPool::instance().acquire(0);
  return record.block.data() == nullptr ? "no host memory left" : nullptr;
}

class CudaQueue final : public CopyQueue {
 public:
  const char* enqueue(std::shared_ptr<Record> record, const GatherPlan& plan, bool on_device) override {
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
    work_.push_back({std::move(lane), std::move(record), plan, stream});
    return nullptr;
  }

  bool submit() override {
    while (next_ < work_.size()) {
      const auto lane = work_[next_].lane;
      if (!lane->submit(work_, next_)) return false;
    }
    return true;
  }

  std::size_t bytes_wanted() const override { return next_ < work_.size() ? work_[next_].record->nbytes : 0; }

 private:
  std::vector<Pending> work_;
  std::size_t next_ = 0;  // the first that is not submitted
};

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

  std::unique_ptr<CopyQueue> make_queue() const override { return std::make_unique<CudaQueue>(); }

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
};

}  // namespace

const AsynchronousDevice& cuda_device() {
  static const CudaDevice device;
  return device;
}

}  // namespace nntap::cuda
