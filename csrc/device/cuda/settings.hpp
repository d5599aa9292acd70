#pragma once

#include <atomic>
#include <cstddef>

namespace nntap::cuda {

/// What the engine is sized by. Read as it works: a smaller size holds once what is under way has landed.
struct Settings {
  /// A chunk: what one copy to the host carries at most. Half a MiB reaches the link's speed; more hides what is
  /// between.
  std::atomic<std::size_t> chunk_bytes{std::size_t{16} << 20};

  /// The most device memory that chunks take: what one burst of activations may hold while the link catches up.
  std::atomic<std::size_t> device_bytes{std::size_t{512} << 20};

  /// Whether records may lie in pinned memory; else all of them pass through staging memory.
  std::atomic<bool> pinned{true};

  /// How many threads copy from staging memory to pageable memory, at least; 0: as the machine has cores.
  std::atomic<unsigned> copy_threads{0};

  /// Whether pinned memory grows ahead of need, in a thread.
  std::atomic<bool> grow_ahead{true};
};

inline Settings settings;

}  // namespace nntap::cuda
