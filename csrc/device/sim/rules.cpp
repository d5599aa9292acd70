#include "device/sim/rules.hpp"

#include <algorithm>
#include <atomic>

namespace nntap::sim {

std::uint64_t new_handle() {
  static std::atomic<std::uint64_t> next{1};
  return 0x5A00'0000'0000'0000 + 16 * next++;  // no address that a processor accepts
}

// ---- contexts ----

cuda::Context Contexts::retain(int device) {
  Primary& primary = primary_[static_cast<std::size_t>(device)];
  if (primary.retained++ == 0) primary.handle = reinterpret_cast<cuda::Context>(new_handle());
  return primary.handle;
}

bool Contexts::release(int device) {
  Primary& primary = primary_[static_cast<std::size_t>(device)];
  require(primary.retained > 0, cuda::kInvalidContext, "the context of device ", device, " is not retained");
  if (primary.retained == 1) {
    for (const auto& [thread, stack] : stacks_) {
      const auto pushed = std::count(stack.devices.begin(), stack.devices.end(), device);
      require(static_cast<std::size_t>(pushed) <= stack.excused, cuda::kInvalidContext, "the context of device ",
              device, " is still on a thread's stack");
    }
    primary.handle = nullptr;
  }
  return --primary.retained == 0;
}

int Contexts::device_of(cuda::Context context) const {
  const auto at = std::find_if(primary_.begin(), primary_.end(),
                               [&](const Primary& p) { return context != nullptr && p.handle == context; });
  require(at != primary_.end(), cuda::kInvalidContext, "context ", context, " is not retained");
  return static_cast<int>(at - primary_.begin());
}

void Contexts::push(cuda::Context context) {
  const int device = device_of(context);
  stacks_[std::this_thread::get_id()].devices.push_back(device);
}

cuda::Context Contexts::pop() {
  auto& stack = stacks_[std::this_thread::get_id()].devices;
  require(!stack.empty(), cuda::kInvalidContext, "this thread has pushed no context");
  const int device = stack.back();
  stack.pop_back();
  return primary_[static_cast<std::size_t>(device)].handle;
}

int Contexts::current() const {
  const auto at = stacks_.find(std::this_thread::get_id());
  const bool any = at != stacks_.end() && !at->second.devices.empty();
  require(any, cuda::kInvalidContext, "this thread has no current context");
  return at->second.devices.back();
}

void Contexts::excuse_release(int device) {
  Primary& primary = primary_[static_cast<std::size_t>(device)];
  primary.excused = std::min(primary.excused + 1, primary.retained);
}

// Which one that leaves is not said: the pop of an outer scope takes what an inner one left.
void Contexts::excuse_pop() { ++stacks_[std::this_thread::get_id()].excused; }

void Contexts::list_leaks(std::vector<std::string>& out) const {
  for (std::size_t device = 0; device < primary_.size(); ++device) {
    const int left = primary_[device].retained - primary_[device].excused;
    if (left > 0) out.push_back(text("context of device ", device, ", retained ", left, " times"));
  }
  for (const auto& [thread, stack] : stacks_) {
    for (std::size_t i = stack.excused; i < stack.devices.size(); ++i) {
      out.push_back(text("context of device ", stack.devices[i], " on a thread's stack"));
    }
  }
}

// ---- registered memory ----

void Registrations::add(void* data, std::size_t bytes, int device, bool portable) {
  require(data != nullptr && bytes > 0, cuda::kInvalidValue, "no memory to register: ", data, ", ", bytes, " bytes");
  const auto after = ranges_.lower_bound(address(data) + bytes);
  if (after != ranges_.begin()) {
    const auto& [begin, range] = *std::prev(after);
    require(begin + range.bytes <= address(data), cuda::kHostMemoryAlreadyRegistered, "[", data, ", +", bytes,
            ") overlaps memory that is registered");
  }
  ranges_[address(data)] = {bytes, device, portable};
}

std::size_t Registrations::bytes_at(void* data) const {
  const auto at = ranges_.find(address(data));
  require(at != ranges_.end(), kHostMemoryNotRegistered, "no registration begins at ", data);
  return at->second.bytes;
}

void Registrations::excuse(void* data) {
  const auto at = ranges_.find(address(data));
  if (at != ranges_.end()) at->second.excused = true;
}

std::map<Registrations::Address, Registrations::Range>::const_iterator Registrations::find(const void* data,
                                                                                           std::size_t bytes) const {
  const auto after = ranges_.upper_bound(address(data));
  if (after == ranges_.begin()) return ranges_.end();
  const auto at = std::prev(after);
  return address(data) + bytes <= at->first + at->second.bytes ? at : ranges_.end();
}

bool Registrations::cover(const void* data, std::size_t bytes) const { return find(data, bytes) != ranges_.end(); }

void Registrations::require_covered(const void* data, std::size_t bytes, int device) const {
  const auto at = find(data, bytes);
  require(at != ranges_.end(), cuda::kInvalidValue, "[", data, ", +", bytes,
          ") does not lie in one registration of host memory");
  require(at->second.portable || at->second.device == device, cuda::kInvalidValue, data, " is registered for device ",
          at->second.device, " alone, not for device ", device);
}

std::size_t Registrations::registered_bytes() const {
  std::size_t sum = 0;
  for (const auto& [begin, range] : ranges_) sum += range.bytes;
  return sum;
}

void Registrations::list_leaks(std::vector<std::string>& out) const {
  for (const auto& [begin, range] : ranges_) {
    if (!range.excused) out.push_back(text("registration of ", range.bytes, " bytes at ", begin));
  }
}

}  // namespace nntap::sim
