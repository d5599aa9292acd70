#pragma once

#include <atomic>
#include <cstddef>

namespace nntap::cuda {

/// What the engine is sized by. Read when a device is first recorded on.
struct Settings {
  /// A chunk: what one copy to the host carries at most. Half a MiB reaches the link's speed; more hides what is
  /// between.
  std::atomic<std::size_t> chunk_bytes{std::size_t{16} << 20};

  /// The most device memory that chunks take: what one burst of activations may hold while the link catches up.
  std::atomic<std::size_t> device_bytes{std::size_t{512} << 20};

  /// Whether records may lie in pinned memory; else all of them pass through staging memory.
  std::atomic<bool> pinned{true};

  /// Whether pinned memory grows ahead of need, in a thread.
  std::atomic<bool> grow_ahead{true};
};

inline Settings settings;

}  // namespace nntap::cuda
