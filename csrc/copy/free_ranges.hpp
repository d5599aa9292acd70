#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <utility>

namespace nntap {

struct Slab;

/// The holes in slabs that also hold records, neighbours merged. Guarded by its pool's mutex.
class FreeRanges {
 public:
  /// Throws std::bad_alloc; the range is then lost until its slab is forgotten.
  void add(Slab& slab, char* begin, std::size_t size);

  /// Cuts `size` bytes off the smallest range that has them. Null where there is none. Throws as add() does.
  std::pair<Slab*, char*> take(std::size_t size);

  void forget(const Slab& slab) noexcept;

 private:
  struct Range {
    Slab* slab;
    std::size_t size;
  };
  using ByAddress = std::map<char*, Range>;

  void drop(ByAddress::iterator range) noexcept;

  ByAddress by_address_;                             // to merge neighbours
  std::set<std::pair<std::size_t, char*>> by_size_;  // to find a fit
};

}  // namespace nntap
