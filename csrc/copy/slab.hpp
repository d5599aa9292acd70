#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace nntap {

class HostPool;

/// One mapping. Bytes from `top` on have never been cut since the slab was last empty.
struct Slab {
  HostPool* home = nullptr;
  char* base = nullptr;
  std::size_t size = 0;
  std::size_t top = 0;
  std::size_t touched = 0;
  std::size_t used = 0;
  std::size_t leased = 0;                               // blocks
  std::size_t touchers = 0;                             // threads that touch its pages without the mutex: it stays
  std::vector<std::pair<char*, std::size_t>> returned;  // not yet free ranges; see settle_returned()
};

}  // namespace nntap
