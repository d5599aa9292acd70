#pragma once

// The OpenMP threads that torch's own operations run on: copying needs none of its own, and follows
// torch.set_num_threads().

namespace nntap {

/// How many of them an operation of the calling thread may use, itself included. 1 where torch's OpenMP was not found,
/// inside such an operation, and in a forked process, where its threads are missing.
int torch_threads();

/// From here on they are missing: the process was forked before the core was loaded.
void lose_torch_threads();

/// Calls work(data, part) for each part, on these threads, and returns when all have returned. The work must not throw.
void on_torch_threads(int parts, void (*work)(void*, int), void* data);

template <typename Work>
void on_torch_threads(int parts, Work& work) {
  on_torch_threads(parts, [](void* data, int part) { (*static_cast<Work*>(data))(part); }, &work);
}

}  // namespace nntap
