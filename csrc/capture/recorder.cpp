#include "capture/recorder.hpp"

#include <utility>

#include "capture/nest.hpp"
#include "capture/ticket.hpp"
#include "capture/torch_seam.hpp"
#include "device/registry.hpp"
#include "support/error.hpp"

namespace nntap {
namespace {

// Replaces tensors by tickets.
class Freezer final : public NestVisitor {
 public:
  Freezer(PyObject* rebuild, TensorRecorder& tensors, QueuedCopies& queued)
      : NestVisitor(rebuild), tensors_(tensors), queued_(queued) {}
  Ref leaf(PyObject* value) override { return torch_seam::is_tensor(value) ? tensors_.record(value, queued_) : Ref(); }

 private:
  TensorRecorder& tensors_;
  QueuedCopies& queued_;
};

// Replaces tickets by tensors.
class Thawer final : public NestVisitor {
 public:
  Thawer(PyObject* rebuild, TensorRecorder& tensors) : NestVisitor(rebuild), tensors_(tensors) {}
  Ref leaf(PyObject* value) override {
    if (is_ticket(value)) {
      tensors_.keep_read(value);
      return redeem(value);
    }
    return torch_seam::is_tensor(value) ? Ref::share(value) : Ref();
  }

 private:
  TensorRecorder& tensors_;
};

}  // namespace

Recorder::Recorder(std::size_t paths, bool pairs, Ref rebuild, TensorOptions options)
    : pairs_(pairs), rebuild_(std::move(rebuild)), tensors_(std::move(options), paths), paths_(paths) {
  order_.reserve(paths);
}

void Recorder::record(Py_ssize_t path, Slot slot, PyObject* value) {
  if (closed_) return;  // a forward in another thread that outlived the capture
  Ref kept = frozen(value);
  if (closed_) return;
  store(path, visit_for(path, slot), slot, std::move(kept));
}

Ref Recorder::frozen(PyObject* value) {
  QueuedCopies queued;
  try {
    Freezer freezer(rebuild_.get(), tensors_, queued);
    Ref kept = walk_nest(value, freezer);
    tensors_.submit(queued);
    return kept;
  } catch (...) {
    tensors_.forget_queued();
    throw;
  }
}

std::size_t Recorder::visit_for(Py_ssize_t path, Slot slot) {
  Visits& visits = visits_of(path);
  if (!pairs_) return visits.add();
  return slot == Slot::kOutput ? visits.close_last() : visits.open();
}

void Recorder::store(Py_ssize_t path, std::size_t visit, Slot slot, Ref value) {
  Visits& visits = visits_of(path);
  if (visit == 0 && !visits[0].values[0] && !visits[0].values[1]) order_.push_back(path);
  visits[visit].values[static_cast<int>(slot)] = std::move(value);
}

Ref Recorder::read(Py_ssize_t path, Py_ssize_t visit, Slot slot) {
  const auto index = static_cast<int>(slot);
  const Ref held = checked_visit(path, visit).values[index];
  if (!held) return Ref::share(Py_None);
  if (!checked_visit(path, visit).read[index]) {
    Thawer thawer(rebuild_.get(), tensors_);
    Ref thawed = walk_nest(held.get(), thawer);
    Visit& found = checked_visit(path, visit);  // once more: walking may have run Python code
    if (!found.read[index]) {
      found.values[index] = std::move(thawed);
      found.read[index] = true;
    }
  }
  return checked_visit(path, visit).values[index];
}

Visit& Recorder::checked_visit(Py_ssize_t path, Py_ssize_t visit) {
  NNTAP_CHECK(static_cast<std::size_t>(path) < paths_.size(), InvalidArgument, "path ", path, " is not one of ",
              paths_.size());
  Visits& visits = visits_of(path);
  NNTAP_CHECK(visit >= 0 && static_cast<std::size_t>(visit) < visits.size(), InvalidArgument, "visit ", visit,
              " is not one of ", visits.size());
  return visits[static_cast<std::size_t>(visit)];
}

void Recorder::close() {
  closed_ = true;
  tensors_.forget_tensors();
  try {
    for (const AsynchronousDevice* device : asynchronous_devices()) device->flush();
  } catch (const CudaError&) {  // whoever reads what did not reach the host is told
  }
}

int Recorder::traverse(visitproc visit, void* arg) const {
  Py_VISIT(rebuild_.get());
  Py_VISIT(tensors_.options().slow.get());
  for (const Visits& path : paths_) {
    for (std::size_t i = 0; i < path.size(); ++i) {
      Py_VISIT(path[i].values[0].get());
      Py_VISIT(path[i].values[1].get());
    }
  }
  return 0;
}

void Recorder::clear() {
  closed_ = true;
  // Moved out first: dropping a value may run Python code that looks at this recorder.
  const auto paths = std::exchange(paths_, {});
  const Ref rebuild = std::exchange(rebuild_, Ref());
  order_.clear();
  tensors_.clear();
}

Call::Call(Recorder& recorder, Py_ssize_t path)
    : recorder_(recorder), path_(path), since_(recorder.closed_ ? 0 : recorder.visits(path)) {}

Call::~Call() {
  if (recorder_.closed_ || !recorder_.pairs_) return;
  recorder_.visits_of(path_).abandon(since_);
}

void Call::record_output(PyObject* value) {
  if (recorder_.closed_) return;
  Ref kept = recorder_.frozen(value);
  if (recorder_.closed_) return;
  Visits& visits = recorder_.visits_of(path_);
  const std::size_t visit = recorder_.pairs_ ? visits.close_first(since_) : visits.add();
  recorder_.store(path_, visit, Slot::kOutput, std::move(kept));
}

}  // namespace nntap
