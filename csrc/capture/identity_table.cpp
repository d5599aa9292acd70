#include "capture/identity_table.hpp"

#include "capture/torch_seam.hpp"
#include "copy/dtype.hpp"
#include "python/weak_reference.hpp"

namespace nntap {

std::shared_ptr<Record> IdentityTable::find(PyObject* tensor, const TensorView& source, DLDataType out) const {
  const auto found = known_.find(tensor);
  if (found == known_.end()) return nullptr;
  const Known& known = found->second;
  const Record& record = *known.record;
  const bool same = referent(known.alive.get()).get() == tensor && record.source.data == source.data &&
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
