#include "copy/copy_stats.hpp"

namespace nntap {

void CopyStats::count_shared(const Record& record) {
  ++records;
  ++shared;
  bytes_recorded += record.nbytes;
  bytes_shared += record.nbytes;
}

void CopyStats::count_copied(const Record& record) {
  ++records;
  bytes_recorded += record.nbytes;
  bytes_moved += record.nbytes;
}

}  // namespace nntap
