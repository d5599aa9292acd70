#pragma once

// How a strided tensor lies in memory, and in which order it is gathered into a dense one.

#include <array>
#include <cstddef>
#include <cstdint>

namespace nntap {

/// Tensors of more dimensions than this are left to torch.
inline constexpr int kMaxDims = 8;

using Dims = std::array<std::int64_t, kMaxDims>;

/// Shape and strides, in elements. Only the first `ndim` of each are set, and copied: layouts are on the hook's path.
struct Layout {
  int ndim = 0;
  Dims shape;
  Dims strides;

  Layout() {}
  Layout(const Layout& other) { *this = other; }
  Layout& operator=(const Layout& other) { return assign(other.ndim, other.shape.data(), other.strides.data()); }
  Layout& assign(int dims, const std::int64_t* new_shape, const std::int64_t* new_strides);

  std::int64_t numel() const;
  bool operator==(const Layout& other) const;
};

/// The layout torch's clone() gives: the same strides where the tensor is dense and does not overlap itself,
/// else dense strides in the same order of dimensions.
Layout dense_like(const Layout& source);

/// The order in which elements are read so that they are written one after the other. Dimensions of size 1 are
/// dropped and neighbours that continue each other are merged; the last dimension is the fastest.
struct GatherPlan {
  int ndim = 0;
  Dims shape;
  Dims source_strides;
  std::int64_t numel = 0;
};

/// `dense` is what dense_like() gave for `source`.
GatherPlan plan_gather(const Layout& source, const Layout& dense);

}  // namespace nntap
