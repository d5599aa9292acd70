#include "device/cpu/cpu_device.hpp"

#include <algorithm>
#include <cstring>

#include "copy/copy_bytes.hpp"
#include "copy/dtype.hpp"
#include "device/cpu/cast.hpp"

namespace nntap {
namespace {

constexpr std::size_t kPiece = 512;  // elements converted at a time; the buffers stay in the first-level cache
constexpr std::size_t kMaxItem = 16;

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

class CpuDevice final : public SynchronousDevice {
 public:
  const char* name() const override { return "cpu"; }

  bool owns(const TensorView& source) const override { return source.device.device_type == kDLCPU; }

  bool can_cast(DLDataType from, DLDataType to) const override { return from == to || find_cast(from, to) != nullptr; }

  void copy(const TensorView& source, const GatherPlan& plan, Record& record) const override {
    const Converter converter(source.dtype, record.dtype);
    char* out = static_cast<char*>(record.block.data());
    for_each_run(source, plan, [&](const char* at, std::int64_t stride, std::size_t count) {
      converter.convert(at, stride, out, count);
      out += count * converter.out_item();
      return true;
    });
  }

  bool holds(const Record& record, const TensorView& source, const GatherPlan& plan) const override {
    const Converter converter(source.dtype, record.dtype);
    const char* held = static_cast<const char*>(record.block.data());
    return for_each_run(source, plan, [&](const char* at, std::int64_t stride, std::size_t count) {
      if (!converter.matches(at, stride, held, count)) return false;
      held += count * converter.out_item();
      return true;
    });
  }
};

}  // namespace

const Device& cpu_device() {
  static const CpuDevice device;
  return device;
}

}  // namespace nntap
