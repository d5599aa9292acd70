#include "copy/pages.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <vector>

#ifndef __linux__  // no such advice: it is refused, as by a kernel that is too old
#define MADV_POPULATE_WRITE -1
#define MADV_HUGEPAGE -1
#elif !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace nntap {
namespace {

constexpr std::size_t kPerThread = std::size_t{8} << 20;
constexpr std::size_t kMostThreads = 4;  // the kernel clears pages no faster with more

}  // namespace

char* map_pages(std::size_t bytes) noexcept {
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  madvise(base, bytes, MADV_HUGEPAGE);  // fewer faults; refused where the kernel has none
  return static_cast<char*>(base);
}

void unmap_pages(char* base, std::size_t bytes) noexcept { munmap(base, bytes); }

void touch_pages(char* begin, std::size_t bytes) noexcept {
  if (madvise(begin, bytes, MADV_POPULATE_WRITE) == 0) return;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (std::size_t i = 0; i < bytes; i += page) __atomic_fetch_or(begin + i, 0, __ATOMIC_RELAXED);
}

void touch_pages_in_parallel(char* begin, std::size_t bytes) noexcept {
  const std::size_t cores = std::max(1u, std::thread::hardware_concurrency());
  const std::size_t wanted = std::min({(bytes + kPerThread - 1) / kPerThread, cores, kMostThreads});
  const std::size_t share = bytes / std::max<std::size_t>(wanted, 1) / kPerThread * kPerThread;
  std::vector<std::thread> helpers;
  std::size_t begun = 0;
  try {
    for (std::size_t i = 1; i < wanted && share > 0; ++i, begun += share) {
      helpers.emplace_back(touch_pages, begin + begun, share);
    }
  } catch (...) {  // no more threads to be had: the rest is done here
  }
  touch_pages(begin + begun, bytes - begun);
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace nntap
