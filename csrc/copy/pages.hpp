#pragma once

// Anonymous memory of the system.

#include <cstddef>

namespace nntap {

/// Address space without pages, or null.
char* map_pages(std::size_t bytes) noexcept;
void unmap_pages(char* base, std::size_t bytes) noexcept;

/// Makes the pages exist before a copy meets them; a fault in the middle of a copy costs many times the copy. What is
/// in them stays, also what another thread is writing.
void touch_pages(char* begin, std::size_t bytes) noexcept;

/// The same with several threads: the kernel clears pages slower than memory takes them.
void touch_pages_in_parallel(char* begin, std::size_t bytes) noexcept;

}  // namespace nntap
