#include "capture/tensor_recorder.hpp"

#include <memory>
#include <utility>

#include "capture/python_error.hpp"
#include "capture/ticket.hpp"
#include "capture/torch_seam.hpp"
#include "device/registry.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

// Copies from here on let other Python threads run.
constexpr std::size_t kDropGilBytes = std::size_t{4} << 20;

class CopyRequest final : public MemoryRequest {
 public:
  explicit CopyRequest(Snapshot& snapshot) : snapshot_(snapshot) {}
  bool place() override { return snapshot_.place(); }
  std::size_t bytes() const override { return snapshot_.bytes(); }
  std::size_t bytes_in_use() const override { return HostPool::instance().stats().used_bytes; }
  void wait(std::chrono::milliseconds patience) override { HostPool::instance().wait_for_return(patience); }

 private:
  Snapshot& snapshot_;
};

class SubmitRequest final : public MemoryRequest {
 public:
  explicit SubmitRequest(const AsynchronousDevice& device) : device_(device) {}
  bool place() override { return device_.submit(); }
  std::size_t bytes() const override { return device_.bytes_wanted(); }
  std::size_t bytes_in_use() const override { return device_.host_bytes_in_use(); }
  bool comes_free() const override { return device_.frees_memory(); }
  void wait(std::chrono::milliseconds patience) override { device_.wait_for_memory(patience); }

 private:
  const AsynchronousDevice& device_;
};

bool same(DLDevice a, DLDevice b) { return a.device_type == b.device_type && a.device_id == b.device_id; }

}  // namespace

Ref TensorRecorder::record(PyObject* tensor) {
  if (options.slow_reason.get() != Py_None) {
    const char* reason = PyUnicode_AsUTF8(options.slow_reason.get());
    if (reason == nullptr) throw PythonErrorSet{};
    return leave_to_torch(reason, tensor);
  }
  TensorView source;
  if (const char* reason = torch_seam::view(tensor, source)) return leave_to_torch(reason, tensor);
  const Device* device = find_device(source);
  if (device == nullptr) return leave_to_torch("device left to torch", tensor);
  const DLDataType out = options.has_dtype ? options.dtype : source.dtype;
  if (!device->can_cast(source.dtype, out)) return leave_to_torch("cast left to torch", tensor);
  if (const char* reason = wrong_target(source)) return leave_to_torch(reason, tensor);
  if (const auto* now = device->synchronous()) return copy_now(*now, source, out);
  return copy_later(*device->asynchronous(), source, out, tensor);
}

Ref TensorRecorder::leave_to_torch(const char* reason, PyObject* tensor) {
  ++slow_counts[reason];
  return checked(PyObject_CallOneArg(options.slow.get(), tensor));
}

// Why torch has to bring the record to its target, or null.
const char* TensorRecorder::wrong_target(const TensorView& source) const {
  const bool here = !options.has_target || options.target.device_type == kDLCPU || same(options.target, source.device);
  return here ? nullptr : "another target device";
}

Ref TensorRecorder::copy_now(const SynchronousDevice& device, const TensorView& source, DLDataType out) {
  Snapshot snapshot(device, source, out);
  if (auto known = snapshot.find_shared(shared_, copies)) return ticket_for(std::move(known));
  CopyRequest request(snapshot);
  place_or_wait(request, copies.bytes_held, stalls);
  if (snapshot.bytes() < kDropGilBytes) {
    snapshot.copy();
  } else {
    const WithoutGil others_run;
    snapshot.copy();
  }
  Ref ticket = ticket_for(snapshot.commit(shared_, copies));
  if (!sharing_) shared_.clear();  // the capture ended while others ran
  return ticket;
}

Ref TensorRecorder::copy_later(const AsynchronousDevice& device, const TensorView& source, DLDataType out,
                               PyObject* tensor) {
  if (auto known = handed_on_.find(tensor, source, out)) {
    copies.count_shared(*known);
    return ticket_for(std::move(known));
  }
  const Plan plan(source, out);
  auto record = make_record(source, out, plan);
  const bool on_device = !options.has_target || options.target.device_type != kDLCPU;
  if (const char* reason = device.enqueue(record, plan.gather, on_device)) return leave_to_torch(reason, tensor);
  copies.count_copied(*record);
  handed_on_.remember(tensor, record);
  return ticket_for(std::move(record));
}

void TensorRecorder::submit() {
  for (const AsynchronousDevice* device : asynchronous_devices()) {
    if (device->bytes_wanted() == 0) continue;
    SubmitRequest request(*device);
    try {
      place_or_wait(request, copies.bytes_held, stalls);
    } catch (...) {
      handed_on_.clear();
      throw;
    }
  }
}

void TensorRecorder::discard() noexcept {
  for (const AsynchronousDevice* device : asynchronous_devices()) {
    if (device->bytes_wanted() == 0) continue;
    device->discard();
    handed_on_.clear();
  }
}

void TensorRecorder::keep_read(PyObject* ticket) {
  if (sharing_) read_.push_back(Ref::share(ticket));
}

void TensorRecorder::forget_tensors() noexcept {
  sharing_ = false;
  const auto read = std::exchange(read_, {});
  shared_.clear();
  handed_on_.clear();
}

}  // namespace nntap
