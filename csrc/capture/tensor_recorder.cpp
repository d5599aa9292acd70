#include "capture/tensor_recorder.hpp"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "capture/ticket.hpp"
#include "capture/torch_seam.hpp"
#include "device/registry.hpp"
#include "python/python_error.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

// Work on this many bytes or more lets other Python threads run.
constexpr std::size_t kDropGilBytes = std::size_t{4} << 20;

template <typename Work>
auto letting_others_run(std::size_t bytes, Work work) {
  if (bytes < kDropGilBytes) return work();
  const WithoutGil others_run;
  return work();
}

// A tensor whose record waits for memory, and what it was like before.
class Waiting {
 public:
  Waiting(PyObject* tensor, const TensorView& source)
      : tensor_(tensor), source_(source), version_(torch_seam::version(tensor)) {}

  // Other threads may have edited it, or have given its memory back.
  void check_unchanged() const {
    TensorView now;
    const bool same = torch_seam::view(tensor_, now) == nullptr && now.data == source_.data &&
                      now.layout == source_.layout && torch_seam::version(tensor_) == version_;
    NNTAP_CHECK(same, HostMemoryError,
                "a tensor was changed by another thread while its record waited for host memory: what the module gave "
                "back is gone. Edit tensors in the thread that runs the model, or raise the limit with "
                "nntap.set_limits(host_bytes=...)");
  }

 private:
  PyObject* tensor_;  // borrowed: the model's thread holds it
  TensorView source_;
  std::int64_t version_;
};

class CopyRequest final : public MemoryRequest {
 public:
  CopyRequest(Snapshot& snapshot, PyObject* tensor, const TensorView& source, std::size_t own_bytes)
      : snapshot_(snapshot), tensor_(tensor), source_(source), own_bytes_(own_bytes) {}
  bool place() override {
    return letting_others_run(bytes(), [&] { return snapshot_.place(); });
  }
  void begin_stall() override { waiting_.emplace(tensor_, source_); }
  void end_stall() const override { waiting_->check_unchanged(); }
  std::size_t bytes() const override { return snapshot_.bytes(); }
  bool can_fit() const override { return HostPool::instance().can_fit(bytes()); }
  std::size_t bytes_in_use() const override { return HostPool::instance().stats().used_bytes; }
  std::size_t own_bytes() const override { return own_bytes_; }
  void wait(std::chrono::milliseconds patience) override { HostPool::instance().wait_for_return(patience); }

 private:
  Snapshot& snapshot_;
  PyObject* tensor_;
  const TensorView& source_;
  const std::size_t own_bytes_;
  std::optional<Waiting> waiting_;
};

class SubmitRequest final : public MemoryRequest {
 public:
  SubmitRequest(QueuedCopies::Queue& queued, std::size_t own_bytes) : queued_(queued), own_bytes_(own_bytes) {}
  bool place() override {
    for (const Waiting& each : waiting_) each.check_unchanged();  // before the kernels are launched that read them
    return queued_.queue->submit();
  }
  void begin_stall() override {
    for (const auto& [tensor, record] : queued_.copies) waiting_.emplace_back(tensor.get(), record->source);
  }
  void end_stall() const override {}
  std::size_t bytes() const override { return queued_.queue->bytes_wanted(); }
  bool can_fit() const override { return queued_.device->can_fit(bytes()); }
  std::size_t bytes_in_use() const override { return queued_.device->host_bytes_in_use(); }
  std::size_t own_bytes() const override { return own_bytes_; }
  bool comes_free() const override { return queued_.device->frees_memory(); }
  void wait(std::chrono::milliseconds patience) override { queued_.device->wait_for_memory(patience); }

 private:
  QueuedCopies::Queue& queued_;
  const std::size_t own_bytes_;
  std::vector<Waiting> waiting_;  // empty before a stall
};

bool same(DLDevice a, DLDevice b) { return a.device_type == b.device_type && a.device_id == b.device_id; }

}  // namespace

QueuedCopies::Queue& QueuedCopies::of(const AsynchronousDevice& device) {
  for (Queue& each : queues_) {
    if (each.device == &device) return each;
  }
  queues_.push_back({&device, device.make_queue(), {}});
  return queues_.back();
}

TensorRecorder::TensorRecorder(TensorOptions options, std::size_t expected) : options_(std::move(options)) {
  shared_.reserve(expected);
}

Ref TensorRecorder::record(PyObject* tensor, QueuedCopies& queued) {
  if (options_.slow_reason.get() != Py_None) {
    const char* reason = PyUnicode_AsUTF8(options_.slow_reason.get());
    if (reason == nullptr) throw PythonErrorSet{};
    return leave_to_torch(reason, tensor);
  }
  TensorView source;
  if (const char* reason = torch_seam::view(tensor, source)) return leave_to_torch(reason, tensor);
  const Device* device = find_device(source);
  if (device == nullptr) return leave_to_torch("device left to torch", tensor);
  const DLDataType out = options_.has_dtype ? options_.dtype : source.dtype;
  if (!device->can_cast(source.dtype, out)) return leave_to_torch("cast left to torch", tensor);
  if (const char* reason = wrong_target(source)) return leave_to_torch(reason, tensor);
  if (const auto* now = device->synchronous()) return copy_now(*now, source, out, tensor);
  return copy_later(*device->asynchronous(), source, out, tensor, queued);
}

Ref TensorRecorder::leave_to_torch(const char* reason, PyObject* tensor) {
  ++slow_counts[reason];
  return checked(PyObject_CallOneArg(options_.slow.get(), tensor));
}

// Why torch has to bring the record to its target, or null.
const char* TensorRecorder::wrong_target(const TensorView& source) const {
  const bool here =
      !options_.has_target || options_.target.device_type == kDLCPU || same(options_.target, source.device);
  return here ? nullptr : "another target device";
}

Ref TensorRecorder::copy_now(const SynchronousDevice& device, const TensorView& source, DLDataType out,
                             PyObject* tensor) {
  Snapshot snapshot(device, source, out);
  auto known = snapshot.propose(shared_);
  if (known != nullptr && letting_others_run(snapshot.bytes(), [&] { return snapshot.is(*known); })) {
    copies.count_shared(*known);
    return ticket_for(std::move(known));
  }
  CopyRequest request(snapshot, tensor, source, copied_bytes_);
  place_or_wait(request, stalls);
  copied_bytes_ += HostPool::held_for(snapshot.bytes());
  letting_others_run(snapshot.bytes(), [&] { snapshot.copy(); });
  Ref ticket = ticket_for(snapshot.commit(shared_, copies));
  if (!sharing_) shared_.clear();  // the capture ended while others ran
  return ticket;
}

Ref TensorRecorder::copy_later(const AsynchronousDevice& device, const TensorView& source, DLDataType out,
                               PyObject* tensor, QueuedCopies& queued) {
  if (auto known = handed_on_.find(tensor, source, out)) {
    copies.count_shared(*known);
    return ticket_for(std::move(known));
  }
  const Plan plan(source, out);
  auto record = make_record(source, out, plan);
  const bool on_device = !options_.has_target || options_.target.device_type != kDLCPU;
  auto& [_, queue, queued_copies] = queued.of(device);
  if (const char* reason = queue->enqueue(record, plan.gather, on_device)) return leave_to_torch(reason, tensor);
  queued_copies.push_back({Ref::share(tensor), record});
  copies.count_copied(*record);
  if (!on_device) landing_bytes_ += HostPool::held_for(record->nbytes);
  handed_on_.remember(tensor, record);
  return ticket_for(std::move(record));
}

void TensorRecorder::submit(QueuedCopies& queued) {
  for (QueuedCopies::Queue& each : queued.all()) {
    SubmitRequest request(each, copied_bytes_ + landing_bytes_);
    place_or_wait(request, stalls);
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

void TensorRecorder::clear() noexcept {
  forget_tensors();
  const Ref slow = std::exchange(options_.slow, Ref());
}

}  // namespace nntap
