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

/// What this process may use of the machine's memory, in bytes: all of it, or what its control group (a container)
/// allows. `cgroups`: where control groups are mounted.
std::size_t memory_of_this_system(const char* cgroups = "/sys/fs/cgroup");

/// What of it is free, or can be made so without swapping; where the system does not say, all of it.
std::size_t memory_to_be_had();

}  // namespace nntap
