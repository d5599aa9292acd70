#include "device/cuda/transfer.hpp"

#include <new>

#include "device/cuda/edges.hpp"
#include "device/cuda/lane.hpp"
#include "device/cuda/platform.hpp"
#include "support/error.hpp"

namespace nntap::cuda {

// One after the other: a record of many pieces would take as many frames of the stack.
Transfer::~Transfer() {
  while (before_ != nullptr && before_.use_count() == 1) before_ = std::move(before_->before_);
}

void Transfer::wait() {
  if (forked()) {  // the lane's mutex may be held for ever, by a thread that is not here
    NNTAP_CHECK(has_landed_whole(), CudaError, "a record had not landed when this process was forked");
    return;
  }
  lane_->wait_for(*this);
  if (!keeps(Edge::large_record_waits_for_all)) return;
  for (Transfer* each = before_.get(); each != nullptr; each = each->before_.get()) lane_->wait_for(*each);
}

bool Transfer::has_landed_whole() const {
  for (const Transfer* each = this; each != nullptr; each = each->before_.get()) {
    if (each->state_ != State::kLanded) return false;
  }
  return true;
}

void Transfer::land() noexcept {
  state_ = State::kLanded;
  landed_.reset();
}

void Transfer::fail(const char* why) noexcept {
  state_ = State::kFailed;
  landed_.reset();
  try {
    error_ = why;
  } catch (const std::bad_alloc&) {  // then the reason is lost, and not the failure
  }
}

}  // namespace nntap::cuda
