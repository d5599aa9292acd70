#include "copy/share_table.hpp"

#include "copy/dtype.hpp"

namespace nntap {

std::shared_ptr<Record> ShareTable::propose(const TensorView& source, DLDataType out) const {
  const auto found = records_.find(source.data);
  if (found == records_.end()) return nullptr;
  const Record& known = *found->second;
  const bool alike = known.source.dtype == source.dtype && known.dtype == out && known.source.layout == source.layout;
  return alike ? found->second : nullptr;
}

void ShareTable::remember(const std::shared_ptr<Record>& record) { records_[record->source.data] = record; }

}  // namespace nntap
