#pragma once

// What streams are made of. All of it runs under the simulator's mutex.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "device/sim/clock.hpp"
#include "device/sim/kernel.hpp"
#include "device/sim/random.hpp"

namespace nntap::sim {

using QueueId = std::uint64_t;

/// One record of an event: what a wait captures. Shared by the event, the record in its queue and the waits for it.
struct Mark {
  bool done = false;
  QueueId queue = 0;
  Time end = 0;
};

class Operation {
 public:
  virtual ~Operation() = default;

  /// The mark that must be done before it may begin, or null.
  virtual const Mark* waits_for() const { return nullptr; }

  /// Host memory that it has still to write; null for none.
  virtual const char* target() const { return nullptr; }
  virtual std::size_t target_bytes() const { return 0; }

  /// Does some of it. True when that was all.
  virtual bool advance() = 0;

  Time end = 0;  ///< in virtual time
};

/// Takes time and does nothing.
class Delay final : public Operation {
 public:
  bool advance() override { return true; }
};

class Record final : public Operation {
 public:
  explicit Record(std::shared_ptr<Mark> mark) : mark_(std::move(mark)) {}
  bool advance() override { return mark_->done = true; }

 private:
  std::shared_ptr<Mark> mark_;
};

class Wait final : public Operation {
 public:
  explicit Wait(std::shared_ptr<const Mark> mark) : mark_(std::move(mark)) {}
  const Mark* waits_for() const override { return mark_.get(); }
  bool advance() override { return true; }

 private:
  std::shared_ptr<const Mark> mark_;
};

/// Bytes that a model's operation would have written. It owns them, and writes them all at once.
class Write final : public Operation {
 public:
  Write(void* out, const void* bytes, std::size_t count);
  bool advance() override;

 private:
  char* out_;
  std::vector<char> bytes_;
};

/// A copy within device memory, as a model's operation makes it: what it reads is what is there when it runs.
class Move final : public Operation {
 public:
  Move(void* out, const void* source, std::size_t bytes) : out_(out), source_(source), bytes_(bytes) {}
  bool advance() override;

 private:
  void* out_;
  const void* source_;
  std::size_t bytes_;
};

/// A kernel, with the copy of its parameters that a launch takes.
class Launch final : public Operation {
 public:
  Launch(const Kernel& kernel, unsigned grid_x, void** parameters);
  bool advance() override;

 private:
  const Kernel& kernel_;
  unsigned grid_x_;
  std::vector<std::vector<char>> values_;
  std::vector<void*> parameters_;
};

/// A copy to the host. It lands in pieces, in any order; each is read from the source only when it lands.
class Copy final : public Operation {
 public:
  Copy(const void* source, void* out, std::size_t bytes, Random& random);
  const char* target() const override { return out_; }
  std::size_t target_bytes() const override { return bytes_; }
  bool advance() override;

 private:
  struct Piece {
    std::size_t begin, end;
  };

  const char* source_;
  char* out_;
  std::size_t bytes_;
  std::vector<Piece> pieces_;  // those that have not landed
};

}  // namespace nntap::sim
