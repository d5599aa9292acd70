#include "device/cuda/lane.hpp"

#include <algorithm>
#include <list>
#include <numeric>

#include "copy/dtype.hpp"
#include "device/cuda/check.hpp"
#include "device/cuda/edges.hpp"
#include "device/cuda/kernels/gather_job.hpp"
#include "device/cuda/pinned_pool.hpp"
#include "device/cuda/platform.hpp"
#include "device/cuda/staging.hpp"
#include "support/event_log.hpp"

namespace nntap::cuda {

/// The jobs of one launch. What has not been launched when it is destroyed never runs.
class Lane::Batch {
 public:
  Batch(const Launcher& launcher, Stream stream) : launcher_(launcher), stream_(stream) {}

  void add(const Record& record, const GatherPlan& plan, char* out, std::int64_t first, std::int64_t count) {
    if (jobs_.jobs == kMaxJobs) launch();
    jobs_.job[jobs_.jobs++] = gather_job(record.source, plan, record.dtype, out, first, count,
                                         torch_services.e4m3fn_saturates(record.source.dtype));
  }
  void launch() { launcher_.launch(jobs_, stream_); }

 private:
  const Launcher& launcher_;
  const Stream stream_;
  GatherBatch jobs_{};
};

// ---- opening and closing ----

namespace {

constexpr std::size_t kFewTransfers = 64;

void refuse_capture(const Driver& driver, Stream stream) {
  NNTAP_CHECK(!is_captured(driver, stream), CudaError,
              "a CUDA graph is being captured on the stream of this module, or on another one while this is the "
              "default stream: a record would be made once, at capture, and not when the graph runs. Record outside "
              "torch.cuda.graph() and without mode='reduce-overhead'");
}

}  // namespace

std::shared_ptr<Lane> Lane::open(const Platform& platform, int device, Stream stream) {
  const Driver& driver = *platform.driver;
  auto lane = std::make_shared<Lane>(platform, device);
  check(driver, "cuDeviceGet", driver.device_get(&lane->id_, device));
  check(driver, "cuDevicePrimaryCtxRetain", driver.primary_context_retain(&lane->context_, lane->id_));
  const ContextScope scope(driver, lane->context_);
  refuse_capture(driver, stream);
  check(driver, "cuStreamCreate", driver.stream_create(&lane->side_, kStreamNonBlocking));
  lane->events_ = std::make_shared<EventPool>(driver);
  lane->staging_events_ = std::make_shared<EventPool>(driver, true);
  lane->launcher_ = std::make_unique<Launcher>(driver, lane->id_);
  PinnedPool::instance().attach(driver, lane->context_);
  PinnedPool::instance().quarantine().watch(driver, lane->context_, lane->side_, lane->events_, true);
  return lane;
}

Lane::Lane(const Platform& platform, int device)
    : driver_(*platform.driver), device_(device), ring_(platform, device) {}

Lane::~Lane() { close(); }

void Lane::drain() noexcept {
  flush_or_fail();
  if (keeps(Edge::close_drains_staging)) Staging::instance().drain();
  std::unique_lock<std::mutex> lock(mutex_);
  closed_ = true;
  changed_.wait(lock, [&] { return waiters_ == 0; });
  bool drained = true;
  if (side_ != nullptr && keeps(Edge::close_drains)) {
    const NoexceptContextScope scope(driver_, context_);
    drained = scope.entered() && finish_all_of(side_);
  }
  for (const auto& known : on_the_way_) {
    const auto transfer = known.lock();
    if (transfer == nullptr || transfer->state_ != Transfer::State::kOnTheWay) continue;
    drained ? transfer->land() : transfer->fail("the device was released before the copy landed");
  }
  on_the_way_.clear();
}

void Lane::flush_or_fail() noexcept {
  try {
    flush();
  } catch (const std::exception& error) {
    fail_all_open(error.what());
  }
}

void Lane::fail_all_open(const char* why) noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& filling : fillings_) filling->transfer_->fail(why);
}

void Lane::close() noexcept {
  if (context_ == nullptr) return;
  drain();
  std::lock_guard<std::mutex> lock(mutex_);
  PinnedPool::instance().quarantine().forget(context_);
  fillings_.clear();
  ring_.clear();
  {
    const NoexceptContextScope scope(driver_, context_);
    if (scope.entered() && side_ != nullptr) driver_.stream_destroy(side_);
    if (scope.entered() && events_ != nullptr) events_->close();
    if (scope.entered() && staging_events_ != nullptr) staging_events_->close();
  }
  driver_.primary_context_release(id_);
  context_ = nullptr;
}

void Lane::check_usable() const { NNTAP_CHECK(!closed_, CudaError, "device ", device_, " has been released"); }

// ---- recording ----

bool Lane::prepare(Stream stream, bool needs_chunks) {
  std::lock_guard<std::mutex> lock(mutex_);
  check_usable();
  const ContextScope scope(driver_, context_);
  refuse_capture(driver_, stream);
  if (stream != watched_ || !watching_) {
    PinnedPool::instance().quarantine().watch(driver_, context_, stream, events_, false);
    watched_ = stream;
    watching_ = true;
  }
  return !needs_chunks || ring_.prepare(stream);
}

bool Lane::submit(std::vector<Pending>& work, std::size_t& next) {
  std::lock_guard<std::mutex> lock(mutex_);
  check_usable();
  const ContextScope scope(driver_, context_);
  const Stream stream = work[next].stream;
  LoggedScope logged("launch gathers", 0);
  Batch batch(*launcher_, stream);
  for (; next < work.size() && work[next].lane.get() == this && work[next].stream == stream; ++next) {
    if (!place(work[next], batch)) {
      batch.launch();
      return false;
    }
    logged.add_bytes(work[next].record->nbytes);
  }
  batch.launch();
  return true;
}

bool Lane::place(Pending& item, Batch& batch) {
  Record& record = *item.record;
  if (record.on_device.data() != nullptr) {
    batch.add(record, item.plan, static_cast<char*>(record.on_device.data()), 0, item.plan.numel);
    return true;
  }
  if (record.nbytes > ring_.chunk_bytes()) return place_large(item, batch);
  Filling* filling = filling_with_room(item.stream, record.nbytes, batch);
  char* out = filling == nullptr ? nullptr : filling->add(item.record);
  if (out == nullptr) return false;
  batch.add(record, item.plan, out, 0, item.plan.numel);
  return true;
}

// Each piece has a chunk of its own, whose copy goes to its place in the record's memory.
bool Lane::place_large(Pending& item, Batch& batch) {
  Record& record = *item.record;
  if (record.block.data() == nullptr) {
    record.block = PinnedPool::instance().acquire(record.nbytes);
    item.staged = record.block.data() == nullptr;
    if (item.staged) record.block = HostPool::instance().acquire(record.nbytes);
    if (record.block.data() == nullptr) return false;
  }
  const std::size_t element = item_size(record.dtype);
  const std::size_t piece = ring_.chunk_bytes() / element * element;
  while (item.placed < record.nbytes) {
    const std::size_t bytes = std::min(piece, record.nbytes - item.placed);
    close_filling(item.stream, batch);
    Block region = item.staged ? PinnedPool::instance().acquire_staging(ring_.chunk_bytes()) : Block();
    if (item.staged && region.data() == nullptr) return false;
    Filling& filling = open_filling(item.stream, std::move(region), item.staged);
    char* out = filling.add_piece(item.record, item.placed, bytes);
    batch.add(record, item.plan, out, static_cast<std::int64_t>(item.placed / element),
              static_cast<std::int64_t>(bytes / element));
    try {
      close_filling(item.stream, batch);
    } catch (const std::exception& error) {  // nothing else may be put behind a piece
      if (filling_on(item.stream) == &filling) abandon(*take(filling), error.what());
      throw;
    }
    item.placed += bytes;
  }
  return true;
}

// Null where there is no memory on the host.
Filling* Lane::filling_with_room(Stream stream, std::size_t bytes, Batch& batch) {
  Filling* filling = filling_on(stream);
  if (filling != nullptr && filling->room() >= bytes) return filling;
  close_filling(stream, batch);
  Block region = PinnedPool::instance().acquire(ring_.chunk_bytes());
  const bool staged = region.data() == nullptr;
  if (staged) region = PinnedPool::instance().acquire_staging(ring_.chunk_bytes());
  return region.data() == nullptr ? nullptr : &open_filling(stream, std::move(region), staged);
}

Filling* Lane::filling_on(Stream stream) {
  const auto found = std::find_if(fillings_.begin(), fillings_.end(),
                                  [=](const auto& filling) { return filling->stream() == stream; });
  return found == fillings_.end() ? nullptr : found->get();
}

void Lane::close_filling(Stream stream, Batch& batch) {
  Filling* filling = filling_on(stream);
  if (filling == nullptr) return;
  if (keeps(Edge::gathers_launched_first)) batch.launch();
  flush(*filling);
}

Filling& Lane::open_filling(Stream stream, Block region, bool staged) {
  auto transfer = std::make_shared<Transfer>(shared_from_this());
  auto filling = std::make_unique<Filling>(stream, std::move(transfer), std::move(region), staged);
  fillings_.reserve(fillings_.size() + 1);
  filling->chunk_ = ring_.take(stream);
  while (filling->chunk_ == nullptr) {  // all are being filled, on other streams
    NNTAP_CHECK(flush_one(), CudaError, "device ", device_, " has no memory left for a chunk of ", ring_.chunk_bytes(),
                " bytes");
    filling->chunk_ = ring_.take(stream);
  }
  fillings_.push_back(std::move(filling));
  return *fillings_.back();
}

// ---- copying ----

void Lane::flush() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (fillings_.empty()) return;
  const ContextScope scope(driver_, context_);
  while (flush_one()) continue;
}

// False where there is none but on streams that are being captured.
bool Lane::flush_one() {
  for (const auto& filling : fillings_) {
    if (is_captured(driver_, filling->stream_)) continue;
    flush(*filling);
    return true;
  }
  return false;
}

void Lane::flush(Filling& filling) {
  const std::unique_ptr<Filling> taken = take(filling);
  if (taken->empty()) return put_back(*taken);
  try {
    enqueue_copy(*taken);
  } catch (const std::exception& error) {
    abandon(*taken, error.what());
    throw;
  }
}

std::unique_ptr<Filling> Lane::take(Filling& filling) {
  const auto at =
      std::find_if(fillings_.begin(), fillings_.end(), [&](const auto& each) { return each.get() == &filling; });
  std::unique_ptr<Filling> taken = std::move(*at);
  fillings_.erase(at);
  return taken;
}

void Lane::put_back(Filling& filling) {
  filling.region_.recycle();
  ring_.put(std::move(filling.chunk_));
}

void Lane::enqueue_copy(Filling& filling) {
  const LoggedScope logged("enqueue copy", filling.used_);
  Transfer& transfer = *filling.transfer_;
  const auto gathered = events_->take();
  const auto landed = (filling.staged_ ? staging_events_ : events_)->take();
  auto staged = filling.staged_ ? Staging::instance().make_place() : std::list<Staging::Work>();
  remember(filling.transfer_);
  if (keeps(Edge::record_gathered)) {
    check(driver_, "cuEventRecord", driver_.event_record(gathered.get(), filling.stream_));
  }
  if (keeps(Edge::copy_waits_for_gathers)) {
    check(driver_, "cuStreamWaitEvent", driver_.stream_wait_event(side_, gathered.get(), 0));
  }
  const auto base = reinterpret_cast<DevicePtr>(filling.chunk_->base);
  check(driver_, "cuMemcpyDtoHAsync", driver_.copy_to_host(filling.host_, base, filling.used_, side_));
  if (keeps(Edge::record_landed)) check(driver_, "cuEventRecord", driver_.event_record(landed.get(), side_));
  ++stats_.copies;
  stats_.bytes_copied += filling.used_;

  transfer.state_ = filling.staged_ ? Transfer::State::kStaged : Transfer::State::kOnTheWay;
  transfer.landed_ = landed;
  filling.chunk_->landed = landed;
  if (filling.staged_) {
    staged.front() = {shared_from_this(),         filling.transfer_,         landed,
                      std::move(filling.region_), std::move(filling.parts_), std::move(filling.records_)};
    Staging::instance().enqueue(std::move(staged));
  }
  put_back(filling);
}

void Lane::remember(const std::shared_ptr<Transfer>& transfer) {
  const auto done = [](const std::weak_ptr<Transfer>& each) {
    const auto known = each.lock();
    return known == nullptr || known->state_ == Transfer::State::kLanded;
  };
  if (on_the_way_.size() >= prune_at_) {
    on_the_way_.erase(std::remove_if(on_the_way_.begin(), on_the_way_.end(), done), on_the_way_.end());
    prune_at_ = 2 * on_the_way_.size() + kFewTransfers;
  }
  on_the_way_.push_back(transfer);
}

// The copy could not be enqueued whole. Its records are lost; the chunk and its region are used again only if nothing
// of the device can still be at them.
void Lane::abandon(Filling& filling, const char* error) noexcept {
  filling.transfer_->fail(error);
  if (finish_all_of(filling.stream_) && finish_all_of(side_)) {
    filling.chunk_->landed = nullptr;
    return put_back(filling);
  }
  (void)filling.chunk_.release();
  filling.region_.abandon();
}

bool Lane::finish_all_of(Stream stream) const noexcept {
  return insist([&] { return driver_.stream_synchronize(stream); });
}

// ---- landing ----

void Lane::wait_for(Transfer& transfer) {
  using State = Transfer::State;
  std::shared_ptr<EventT> landed;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    if (transfer.state_ == State::kOpen && keeps(Edge::reader_flushes)) flush_of(transfer);
    if (keeps(Edge::staging_reader_waits)) changed_.wait(lock, [&] { return transfer.state_ != State::kStaged; });
    check_not_failed(transfer);
    if (transfer.state_ != State::kOnTheWay || !keeps(Edge::reader_waits_for_landing)) return;
    landed = transfer.landed_;
    ++waiters_;
  }
  settle(transfer, landed, [] {});
  std::lock_guard<std::mutex> lock(mutex_);
  check_not_failed(transfer);
}

void Lane::check_not_failed(const Transfer& transfer) {
  NNTAP_CHECK(transfer.state_ != Transfer::State::kFailed, CudaError,
              "a record never reached the host: ", transfer.error_);
}

void Lane::flush_of(Transfer& transfer) {
  const auto found = std::find_if(fillings_.begin(), fillings_.end(),
                                  [&](const auto& filling) { return filling->transfer().get() == &transfer; });
  if (found == fillings_.end()) return;
  const ContextScope scope(driver_, context_);
  NNTAP_CHECK(!is_captured(driver_, (*found)->stream_), CudaError,
              "a CUDA graph is being captured on the stream that this record was made on: its copy would become a part "
              "of the graph. Read it when the capture has ended");
  flush(**found);
}

bool Lane::finish(Transfer& transfer, const std::shared_ptr<EventT>& landed,
                  const std::function<void()>& copy) noexcept {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++waiters_;
  }
  settle(transfer, keeps(Edge::staging_waits_for_landing) ? landed : nullptr, copy);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (transfer.state_ == Transfer::State::kLanded) return true;
  }
  const NoexceptContextScope scope(driver_, context_);
  return scope.entered() && finish_all_of(side_);
}

// Waits for the device without the mutex, and gives the transfer its end.
void Lane::settle(Transfer& transfer, std::shared_ptr<EventT> landed, const std::function<void()>& copy) noexcept {
  const auto end = [&](const char* error) noexcept {
    landed.reset();
    std::lock_guard<std::mutex> lock(mutex_);
    error == nullptr ? transfer.land() : transfer.fail(error);
    --waiters_;
  };
  try {
    const LoggedScope logged("wait for landing", 0);
    const ContextScope scope(driver_, context_);
    if (landed != nullptr) check(driver_, "cuEventSynchronize", driver_.event_synchronize(landed.get()));
    copy();
    end(nullptr);
  } catch (const std::exception& failure) {
    end(failure.what());
  }
  changed_.notify_all();
}

std::size_t Lane::trim() {
  std::vector<std::unique_ptr<Chunk>> freed;  // without the mutex: torch's allocator may want the GIL to free them
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return 0;
    const ContextScope scope(driver_, context_);
    freed = ring_.take_landed();
  }
  return std::accumulate(freed.begin(), freed.end(), std::size_t{0},
                         [](std::size_t sum, const auto& chunk) { return sum + chunk->bytes; });
}

LaneStats Lane::stats() const {
  std::lock_guard<std::mutex> lock(mutex_);
  LaneStats stats = stats_;
  stats.chunk_bytes = ring_.chunk_bytes();
  stats.device_bytes = ring_.bytes();
  stats.peak_device_bytes = ring_.peak_bytes();
  stats.gpu_waits = ring_.gpu_waits();
  return stats;
}

}  // namespace nntap::cuda
