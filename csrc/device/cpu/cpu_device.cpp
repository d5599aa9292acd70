#include "device/cpu/cpu_device.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "copy/copy_bytes.hpp"
#include "copy/dtype.hpp"
#include "device/cpu/cast.hpp"
#include "device/cpu/torch_threads.hpp"

namespace nntap {
namespace {

constexpr std::size_t kPiece = 512;  // elements converted at a time; the buffers stay in the first-level cache
constexpr std::size_t kMaxItem = 16;
constexpr std::int64_t kBytesAPart = 256 << 10;      // less is done before another thread has woken
constexpr std::int64_t kElementsALine = kCacheLine;  // of every size of element, whole lines

template <std::size_t kItem>
void gather_items(const char* source, std::int64_t stride, char* out, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(out + i * kItem, source + static_cast<std::int64_t>(i) * stride * std::int64_t{kItem}, kItem);
  }
}

// `stride` in elements. A run of neighbours is one memcpy.
void gather_run(const char* source, std::int64_t stride, char* out, std::size_t count, std::size_t item) {
  if (stride == 1) {
    copy_bytes(out, source, count * item);
    return;
  }
  switch (item) {
    case 1:
      return gather_items<1>(source, stride, out, count);
    case 2:
      return gather_items<2>(source, stride, out, count);
    case 4:
      return gather_items<4>(source, stride, out, count);
    case 8:
      return gather_items<8>(source, stride, out, count);
    default:
      return gather_items<16>(source, stride, out, count);
  }
}

// Calls run(source, stride, count) for each innermost run of the plan, in order, until one says false.
template <typename Run>
bool for_each_run(const TensorView& source, const GatherPlan& plan, Run run) {
  if (plan.numel == 0) return true;
  const auto item = static_cast<std::int64_t>(item_size(source.dtype));
  const char* at = static_cast<const char*>(source.data);
  const int inner = plan.ndim - 1;
  const std::int64_t count = inner < 0 ? 1 : plan.shape[inner];
  const std::int64_t stride = inner < 0 ? 1 : plan.source_strides[inner];
  Dims index{};
  for (;;) {
    if (!run(at, stride, static_cast<std::size_t>(count))) return false;
    int d = inner - 1;
    for (; d >= 0; --d) {
      at += plan.source_strides[d] * item;
      if (++index[d] < plan.shape[d]) break;
      at -= plan.source_strides[d] * item * plan.shape[d];
      index[d] = 0;
    }
    if (d < 0) return true;
  }
}

// Turns strided runs of the source into neighbouring elements of the record's type.
class Converter {
 public:
  Converter(DLDataType from, DLDataType to)
      : item_(item_size(from)), out_item_(item_size(to)), cast_(from == to ? nullptr : find_cast(from, to)) {}

  std::size_t out_item() const { return out_item_; }

  void convert(const char* source, std::int64_t stride, char* out, std::size_t count) const {
    if (cast_ == nullptr) return gather_run(source, stride, out, count, item_);
    if (stride == 1) return cast_(source, out, count);
    alignas(64) char piece[kPiece * kMaxItem];
    for (std::size_t done = 0; done < count; done += kPiece) {
      const std::size_t now = std::min(kPiece, count - done);
      gather_run(source + static_cast<std::int64_t>(done * item_) * stride, stride, piece, now, item_);
      cast_(piece, out + done * out_item_, now);
    }
  }

  // Whether convert() would write what `held` already has.
  bool matches(const char* source, std::int64_t stride, const char* held, std::size_t count) const {
    if (cast_ == nullptr && stride == 1) return std::memcmp(source, held, count * item_) == 0;
    alignas(64) char piece[kPiece * kMaxItem];
    for (std::size_t done = 0; done < count; done += kPiece) {
      const std::size_t now = std::min(kPiece, count - done);
      convert(source + static_cast<std::int64_t>(done * item_) * stride, stride, piece, now);
      if (std::memcmp(piece, held + done * out_item_, now * out_item_) != 0) return false;
    }
    return true;
  }

 private:
  std::size_t item_, out_item_;
  CastFn cast_;
};

// Entries of the slowest dimension from `begin` on.
struct Part {
  TensorView source;
  GatherPlan plan;
};

Part part_of(const TensorView& source, const GatherPlan& plan, std::int64_t begin, std::int64_t count) {
  Part part{source, plan};
  const auto item = static_cast<std::int64_t>(item_size(source.dtype));
  part.source.data = static_cast<const char*>(source.data) + begin * plan.source_strides[0] * item;
  part.plan.shape[0] = count;
  part.plan.numel = plan.numel / plan.shape[0] * count;
  return part;
}

// How many threads a tensor is worth.
std::int64_t parts_for(const GatherPlan& plan, std::size_t item) {
  const std::int64_t worth = plan.numel * static_cast<std::int64_t>(item) / kBytesAPart;
  if (plan.ndim == 0 || worth < 2) return 1;
  return std::min({worth, std::int64_t{torch_threads()}, plan.shape[0]});
}

// Calls work(source, plan, elements before it) for parts of the tensor, on torch's threads where it is worth them.
template <typename Work>
void for_each_part(const TensorView& source, const GatherPlan& plan, const Converter& converter, Work work) {
  const std::int64_t parts = parts_for(plan, std::max(item_size(source.dtype), converter.out_item()));
  if (parts == 1) return work(source, plan, 0);
  // Whole cache lines where the slowest dimension is the only one, so that every part can go past the caches.
  const std::int64_t unit = plan.ndim == 1 ? kElementsALine : 1;
  const std::int64_t each = ((plan.shape[0] + parts - 1) / parts + unit - 1) / unit * unit;
  auto do_part = [&](int number) {
    const std::int64_t begin = std::min(plan.shape[0], number * each), end = std::min(plan.shape[0], begin + each);
    if (begin == end) return;
    const Part part = part_of(source, plan, begin, end - begin);
    work(part.source, part.plan, static_cast<std::size_t>(plan.numel / plan.shape[0] * begin));
  };
  on_torch_threads(static_cast<int>(parts), do_part);
}

class CpuDevice final : public SynchronousDevice {
 public:
  const char* name() const override { return "cpu"; }

  bool owns(const TensorView& source) const override { return source.device.device_type == kDLCPU; }

  bool can_cast(DLDataType from, DLDataType to) const override { return from == to || find_cast(from, to) != nullptr; }

  void copy(const TensorView& source, const GatherPlan& plan, Record& record) const override {
    const Converter converter(source.dtype, record.dtype);
    char* out = static_cast<char*>(record.block.data());
    for_each_part(source, plan, converter, [&](const TensorView& part, const GatherPlan& runs, std::size_t begin) {
      copy_part(part, runs, converter, out + begin * converter.out_item());
    });
  }

  bool holds(const Record& record, const TensorView& source, const GatherPlan& plan) const override {
    const Converter converter(source.dtype, record.dtype);
    const char* held = static_cast<const char*>(record.block.data());
    if (!begins_alike(source, plan, converter, held)) return false;  // what an address was used for again
    std::atomic<bool> same{true};
    for_each_part(source, plan, converter, [&](const TensorView& part, const GatherPlan& runs, std::size_t begin) {
      if (same && !part_matches(part, runs, converter, held + begin * converter.out_item())) same = false;
    });
    return same;
  }

 private:
  static void copy_part(const TensorView& source, const GatherPlan& plan, const Converter& converter, char* out) {
    for_each_run(source, plan, [&](const char* at, std::int64_t stride, std::size_t count) {
      converter.convert(at, stride, out, count);
      out += count * converter.out_item();
      return true;
    });
  }

  static bool part_matches(const TensorView& source, const GatherPlan& plan, const Converter& converter,
                           const char* held) {
    return for_each_run(source, plan, [&](const char* at, std::int64_t stride, std::size_t count) {
      if (!converter.matches(at, stride, held, count)) return false;
      held += count * converter.out_item();
      return true;
    });
  }

  static bool begins_alike(const TensorView& source, const GatherPlan& plan, const Converter& converter,
                           const char* held) {
    if (plan.numel == 0) return true;
    const std::int64_t stride = plan.ndim == 0 ? 1 : plan.source_strides[plan.ndim - 1];
    const std::int64_t run = plan.ndim == 0 ? 1 : plan.shape[plan.ndim - 1];
    const auto few = static_cast<std::size_t>(std::min(run, kElementsALine));
    return converter.matches(static_cast<const char*>(source.data), stride, held, few);
  }
};

}  // namespace

const Device& cpu_device() {
  static const CpuDevice device;
  return device;
}

}  // namespace nntap
