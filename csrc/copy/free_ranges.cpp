#include "copy/free_ranges.hpp"

#include <iterator>

#include "copy/slab.hpp"

namespace nntap {

void FreeRanges::add(Slab& slab, char* begin, std::size_t size) {
  const auto after = by_address_.lower_bound(begin);
  if (after != by_address_.begin()) {
    const auto before = std::prev(after);
    if (before->second.slab == &slab && before->first + before->second.size == begin) {
      begin = before->first;
      size += before->second.size;
      drop(before);
    }
  }
  if (after != by_address_.end() && after->second.slab == &slab && begin + size == after->first) {
    size += after->second.size;
    drop(after);
  }
  by_address_.emplace(begin, Range{&slab, size});
  by_size_.emplace(size, begin);
}

std::pair<Slab*, char*> FreeRanges::take(std::size_t size) {
  const auto fit = by_size_.lower_bound({size, nullptr});
  if (fit == by_size_.end()) return {nullptr, nullptr};
  const auto [found, begin] = *fit;
  const auto range = by_address_.find(begin);
  Slab* slab = range->second.slab;
  drop(range);
  if (found > size) add(*slab, begin + size, found - size);
  return {slab, begin};
}

void FreeRanges::forget(const Slab& slab) noexcept {
  auto range = by_address_.lower_bound(slab.base);
  while (range != by_address_.end() && range->first < slab.base + slab.size) drop(range++);
}

void FreeRanges::drop(ByAddress::iterator range) noexcept {
  by_size_.erase({range->second.size, range->first});
  by_address_.erase(range);
}

}  // namespace nntap
