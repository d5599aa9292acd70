#pragma once

// The one simulator that runs, and the driver table and platform that lead to it.

#include <mutex>

#include "device/sim/simulator.hpp"

namespace nntap::sim {

/// Holds the mutex of the simulator while it lives. Nothing that is called under it needs the GIL.
class Active {
 public:
  Active();

  /// Null: none runs.
  Simulator* get() const { return simulator_; }

  /// Throws std::runtime_error when none runs.
  Simulator& operator*() const;
  Simulator* operator->() const { return &**this; }

 private:
  std::unique_lock<std::mutex> lock_;
  Simulator* simulator_;
};

/// Throws InvalidArgument when one runs, or when the configuration makes no sense.
void start(const Config& config);

/// What is under way is dropped. Calls through the table fail from now on.
void stop();

/// Leads to the simulator that runs. Lives as long as the process.
const cuda::Platform& platform();

// The stream that the operations of this thread go to; they nest.
void push_current_stream(int device, Stream stream);
void pop_current_stream();

}  // namespace nntap::sim
