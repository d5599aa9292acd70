#include "device/cuda/kernels/gather_job.hpp"

#include <algorithm>
#include <limits>

#include "copy/dtype.hpp"
#include "support/error.hpp"

namespace nntap::cuda {
namespace {

static_assert(kGatherDims >= kMaxDims, "every plan fits into a job");

Element element(DLDataType dtype) {
  if (dtype == kFloat64) return Element::kF64;
  if (dtype == kFloat32) return Element::kF32;
  if (dtype == kFloat16) return Element::kF16;
  if (dtype == kBFloat16) return Element::kBF16;
  if (dtype == kFloat8E4M3FN) return Element::kF8E4M3FN;
  if (dtype == kFloat8E5M2) return Element::kF8E5M2;
  return Element::kCopy;
}

// Infinity, where the type has one.
u16 overflow(Element to, bool e4m3fn_saturates) {
  if (to == Element::kF16) return 0x7c00;
  if (to == Element::kF8E5M2) return 0x7c;
  if (to == Element::kF8E4M3FN) return e4m3fn_saturates ? 0x7e : 0x7f;  // 448 or nan
  return 0;
}

bool is_item(std::size_t bytes) { return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16; }

i64 blocks_of(const GatherJob& job) {
  const i64 elements = i64{job.lanes} * kBlockVectors;
  return (job.count + elements - 1) / elements;
}

}  // namespace

bool can_convert(DLDataType from, DLDataType to) {
  if (from == to) return is_item(item_size(from));
  return element(from) != Element::kCopy && element(to) != Element::kCopy;
}

GatherJob gather_job(const TensorView& source, const GatherPlan& plan, DLDataType to, void* out, i64 first, i64 count,
                     bool e4m3fn_saturates) {
  GatherJob job{};
  job.source = source.data;
  job.out = out;
  job.first = first;
  job.count = count;
  job.ndim = std::max(plan.ndim, 1);
  job.shape[0] = 1;
  job.strides[0] = 1;
  std::copy_n(plan.shape.begin(), plan.ndim, job.shape);
  std::copy_n(plan.source_strides.begin(), plan.ndim, job.strides);
  if (source.dtype != to) {
    job.from = element(source.dtype);
    job.to = element(to);
    job.overflow = overflow(job.to, e4m3fn_saturates);
  }
  job.item = static_cast<u8>(item_size(source.dtype));
  job.lanes = static_cast<u8>(job.from == Element::kCopy ? 16 / job.item : kCastLanes);
  job.wide = plan.numel > std::numeric_limits<std::int32_t>::max();
  return job;
}

void finish(GatherBatch& batch) {
  i64 blocks = 0;
  for (int j = 0; j < batch.jobs; ++j) {
    batch.job[j].first_block = static_cast<int>(blocks);
    blocks += blocks_of(batch.job[j]);
    NNTAP_CHECK(blocks <= std::numeric_limits<int>::max(), InvalidArgument, "one launch cannot copy ",
                batch.job[j].count, " elements; copy them in pieces");
  }
  batch.blocks = static_cast<int>(blocks);
}

}  // namespace nntap::cuda
