#pragma once

// What CUDA forbids: handles that are gone, contexts out of balance, memory that is not registered. Each broken rule is
// thrown as a Violation, which the driver table writes down and turns into the error that CUDA gives.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "device/cuda/driver.hpp"
#include "support/error.hpp"

namespace nntap::sim {

inline constexpr cuda::Result kInvalidHandle = 400, kHostMemoryNotRegistered = 713, kCaptureUnsupported = 900;

struct Violation {
  cuda::Result result;
  std::string text;
};

/// Throws a Violation with the text of the parts unless `condition` holds.
template <typename... Parts>
void require(bool condition, cuda::Result result, const Parts&... parts) {
  if (!condition) throw Violation{result, text(parts...)};
}

/// A value that no other handle of this process has or had, and at which no memory can be.
std::uint64_t new_handle();

/// What lives of one kind, by handle.
template <typename Handle, typename State>
class Handles {
 public:
  using Map = std::map<Handle, State>;

  explicit Handles(const char* kind) : kind_(kind) {}

  Handle add(State state) {
    const auto handle = reinterpret_cast<Handle>(new_handle());
    alive_.emplace(handle, std::move(state));
    return handle;
  }

  State& get(Handle handle) {
    const auto at = alive_.find(handle);
    if (at != alive_.end()) return at->second;
    const bool gone = destroyed_.count(handle) > 0;
    throw Violation{kInvalidHandle,
                    text(kind_, " ", handle, gone ? " was destroyed before" : " is not one of this driver")};
  }

  void remove(Handle handle) {
    alive_.erase(handle);
    destroyed_.insert(handle);
  }

  Map& alive() { return alive_; }
  const Map& alive() const { return alive_; }

 private:
  const char* kind_;
  Map alive_;
  std::set<Handle> destroyed_;
};

/// The primary context of each device, and each thread's stack of them.
class Contexts {
 public:
  explicit Contexts(int devices) : primary_(static_cast<std::size_t>(devices)) {}

  cuda::Context retain(int device);

  /// True when nobody retains it any longer.
  bool release(int device);
  void push(cuda::Context context);
  cuda::Context pop();

  /// The device whose context the calling thread has on top.
  int current() const;

  /// A release or pop that was made to fail: what it left alive is no leak of the caller's.
  void excuse_release(int device);
  void excuse_pop();

  void list_leaks(std::vector<std::string>& out) const;

 private:
  struct Primary {
    cuda::Context handle = nullptr;
    int retained = 0, excused = 0;
  };
  struct Stack {
    std::vector<int> devices;  // the current one last
    std::size_t excused = 0;   // how many may be left on it
  };

  int device_of(cuda::Context context) const;

  std::vector<Primary> primary_;
  std::map<std::thread::id, Stack> stacks_;
};

/// Host memory that copies may go to without waiting.
class Registrations {
 public:
  void add(void* data, std::size_t bytes, int device, bool portable);
  std::size_t bytes_at(void* data) const;
  void remove(void* data) { ranges_.erase(address(data)); }
  void excuse(void* data);

  /// Whether one registration holds all of it.
  bool cover(const void* data, std::size_t bytes) const;

  /// Throws unless one registration, made for that device, holds all of it.
  void require_covered(const void* data, std::size_t bytes, int device) const;

  std::size_t registered_bytes() const;
  void list_leaks(std::vector<std::string>& out) const;

 private:
  using Address = std::uintptr_t;
  struct Range {
    std::size_t bytes;
    int device;
    bool portable;
    bool excused = false;
  };

  std::map<Address, Range>::const_iterator find(const void* data, std::size_t bytes) const;

  static Address address(const void* data) { return reinterpret_cast<Address>(data); }

  std::map<Address, Range> ranges_;
};

}  // namespace nntap::sim
