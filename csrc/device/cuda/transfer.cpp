#include "device/cuda/transfer.hpp"

#include "device/cuda/edges.hpp"
#include "device/cuda/lane.hpp"
#include "device/cuda/platform.hpp"
#include "support/error.hpp"

namespace nntap::cuda {

void Transfer::wait() {
  if (forked()) {  // the lane's mutex may be held for ever, by a thread that is not here
    NNTAP_CHECK(state_ == State::kLanded, CudaError, "a record had not landed when this process was forked");
    return;
  }
  if (before_ != nullptr && keeps(Edge::large_record_waits_for_all)) before_->wait();
  lane_->wait_for(*this);
}

}  // namespace nntap::cuda
