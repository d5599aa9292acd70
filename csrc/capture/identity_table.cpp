#include "capture/identity_table.hpp"

#include "capture/torch_seam.hpp"
#include "copy/dtype.hpp"

namespace nntap {

namespace {

bool refers_to(PyObject* weak, PyObject* object) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* referent = nullptr;
  if (PyWeakref_GetRef(weak, &referent) < 0) PyErr_Clear();
  const Ref held = Ref::steal(referent);
  return referent == object;
#else
  return PyWeakref_GetObject(weak) == object;
#endif
}

}  // namespace

std::shared_ptr<Record> IdentityTable::find(PyObject* tensor, const TensorView& source, DLDataType out) const {
  const auto found = known_.find(tensor);
  if (found == known_.end()) return nullptr;
  const Known& known = found->second;
  const Record& record = *known.record;
  const bool same = refers_to(known.alive.get(), tensor) && record.source.data == source.data &&
                    record.source.dtype == source.dtype && record.source.layout == source.layout &&
                    record.dtype == out && torch_seam::version(tensor) == known.version;
  return same ? known.record : nullptr;
}

void IdentityTable::remember(PyObject* tensor, const std::shared_ptr<Record>& record) {
  const std::int64_t version = torch_seam::version(tensor);
  if (version < 0) return;  // an inference tensor: nobody counts its changes
  Ref alive = Ref::steal(PyWeakref_NewRef(tensor, nullptr));
  if (!alive) return PyErr_Clear();
  known_[tensor] = {std::move(alive), version, record};
}

}  // namespace nntap
