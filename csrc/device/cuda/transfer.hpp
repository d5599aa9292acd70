#pragma once

#include <memory>
#include <string>

#include "copy/landing.hpp"
#include "device/cuda/event_pool.hpp"

namespace nntap::cuda {

class Lane;

/// One chunk's way to the host, shared by the records in it. Its state is guarded by the lane's mutex.
class Transfer final : public Landing {
 public:
  enum class State {
    kOpen,      ///< the chunk is being filled
    kOnTheWay,  ///< its copy is enqueued
    kStaged,    ///< the same, into staging memory; the copy threads bring it to where it belongs
    kLanded,
    kFailed,
  };

  explicit Transfer(std::shared_ptr<Lane> lane) : lane_(std::move(lane)) {}

  ~Transfer() override;

  void wait() override;

  /// A large record takes several transfers: this one's wait() then waits for the earlier ones too.
  void follow(std::shared_ptr<Transfer> before) { before_ = std::move(before); }

 private:
  friend class Lane;

  bool has_landed_whole() const;

  // With the lane's mutex held.
  void land() noexcept;
  void fail(const char* why) noexcept;

  const std::shared_ptr<Lane> lane_;
  std::shared_ptr<Transfer> before_;
  State state_ = State::kOpen;
  std::shared_ptr<EventT> landed_;  // while on the way
  std::string error_;               // when failed
};

}  // namespace nntap::cuda
