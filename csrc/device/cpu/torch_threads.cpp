#include "device/cpu/torch_threads.hpp"

#include <algorithm>
#include <atomic>

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <cstring>
#endif

namespace nntap {
namespace {

// The part of OpenMP's binary interface that GCC's, Intel's and LLVM's runtimes share.
struct OpenMp {
  void (*parallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags) = nullptr;
  int (*max_threads)() = nullptr;
  int (*thread)() = nullptr;
  int (*threads)() = nullptr;
  int (*in_parallel)() = nullptr;

  bool complete() const { return parallel && max_threads && thread && threads && in_parallel; }
};

std::atomic<bool> missing{false};

#if defined(__linux__)

// From the moment the core is loaded: torch may have run its threads before the core did.
const int kWatchingForks = pthread_atfork(nullptr, nullptr, lose_torch_threads);

template <typename Entry>
void find(void* library, const char* symbol, Entry& entry) {
  entry = reinterpret_cast<Entry>(dlsym(library, symbol));
}

int is_torch(dl_phdr_info* library, std::size_t, void* found) {
  if (std::strstr(library->dlpi_name, "/libtorch_cpu.so") == nullptr) return 0;
  *static_cast<const char**>(found) = library->dlpi_name;
  return 1;
}

// Looked up from torch's library, so that it is the runtime torch uses: a process may hold several.
OpenMp find_openmp() {
  OpenMp found;
  const char* path = nullptr;
  if (dl_iterate_phdr(is_torch, &path) == 0) return found;
  void* torch = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
  if (torch == nullptr) return found;
  find(torch, "GOMP_parallel", found.parallel);
  find(torch, "omp_get_max_threads", found.max_threads);
  find(torch, "omp_get_thread_num", found.thread);
  find(torch, "omp_get_num_threads", found.threads);
  find(torch, "omp_in_parallel", found.in_parallel);
  return found;
}

bool threads_are_missing() { return kWatchingForks != 0 || missing.load(std::memory_order_relaxed); }

#else

OpenMp find_openmp() { return {}; }
bool threads_are_missing() { return missing.load(std::memory_order_relaxed); }

#endif

const OpenMp& openmp() {
  static const OpenMp found = find_openmp();
  return found;
}

struct Job {
  int parts;
  void (*work)(void*, int);
  void* data;
};

// A team may have fewer threads than were asked for.
void run_share(void* job) {
  const Job& mine = *static_cast<const Job*>(job);
  for (int part = openmp().thread(); part < mine.parts; part += openmp().threads()) mine.work(mine.data, part);
}

}  // namespace

void lose_torch_threads() { missing = true; }

int torch_threads() {
  if (!openmp().complete() || threads_are_missing() || openmp().in_parallel() != 0) return 1;
  return std::max(1, openmp().max_threads());
}

void on_torch_threads(int parts, void (*work)(void*, int), void* data) {
  const int threads = std::min(parts, torch_threads());
  if (threads > 1) {
    Job job{parts, work, data};
    openmp().parallel(run_share, &job, static_cast<unsigned>(threads), 0);
    return;
  }
  for (int part = 0; part < parts; ++part) work(data, part);
}

}  // namespace nntap
