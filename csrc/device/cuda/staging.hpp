#pragma once

// From pinned staging memory to pageable memory, for what is recorded past the pinned limit.

#include <chrono>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "copy/record.hpp"
#include "device/cuda/filling.hpp"

namespace nntap::cuda {

class Lane;

/// The threads that do it. One instance, never destroyed.
class Staging {
 public:
  struct Work {
    std::shared_ptr<Lane> lane;
    std::shared_ptr<Transfer> transfer;
    std::shared_ptr<EventT> landed;
    Block region;
    std::vector<Part> parts;
    std::vector<std::shared_ptr<Record>> records;  // holds their memory
  };

  static Staging& instance();

  /// Readies a place in the queue and a thread to take it from there. Throws, and then nothing is under way.
  std::list<Work> make_place();

  /// Queues the work that the place now holds.
  void enqueue(std::list<Work> place) noexcept;

  /// Whether copies are under way that will make staging memory free.
  bool busy() const;

  /// Waits until one is done, or `patience` is over.
  void wait(std::chrono::milliseconds patience);

  /// Waits until all are done.
  void drain();

  /// Ends the threads, when all is done. Called before the interpreter goes.
  void stop();

 private:
  void start();
  void work();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Work> queue_;
  std::size_t pending_ = 0;  // queued or being copied
  std::size_t finished_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace nntap::cuda
