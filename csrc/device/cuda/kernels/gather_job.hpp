#pragma once

// From tensors and plans to what the gather+cast kernel is launched with.

#include "copy/layout.hpp"
#include "copy/tensor_view.hpp"
#include "device/cuda/kernels/gather_cast.hpp"

namespace nntap::cuda {

/// Whether the kernel turns elements of one type into the other: equal types of 1, 2, 4, 8 or 16 bytes, and float64,
/// float32, float16, bfloat16, float8_e4m3fn and float8_e5m2 into each other.
bool can_convert(DLDataType from, DLDataType to);

/// Elements [first, first + count) of the plan, converted to `to`, which can_convert() allows. `out` is aligned to 16
/// bytes. `e4m3fn_saturates`: what is too large for float8_e4m3fn becomes 448, as in torch 2.13 and later, not nan.
GatherJob gather_job(const TensorView& source, const GatherPlan& plan, DLDataType to, void* out, i64 first, i64 count,
                     bool e4m3fn_saturates);

/// Gives each of the batch's jobs its blocks, and the batch its grid. 0 blocks, where nothing is to be copied, are no
/// launch. Throws InvalidArgument where the grid would be larger than a launch can be.
void finish(GatherBatch& batch);

}  // namespace nntap::cuda
