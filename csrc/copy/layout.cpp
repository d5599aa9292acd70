#include "copy/layout.hpp"

#include <algorithm>
#include <numeric>

namespace nntap {
namespace {

using Order = std::array<int, kMaxDims>;

// Sorts the first `n`, of at most kMaxDims, by insertion: for so few nothing is faster.
template <typename Before>
void sort_first(Order& order, int n, Before before) {
  for (int i = 1; i < n; ++i) {
    for (int at = i; at > 0 && before(order[at], order[at - 1]); --at) std::swap(order[at], order[at - 1]);
  }
}

// Dense and free of overlap: sorted by stride, each dimension begins where the faster ones end. The strides of an empty
// tensor say nothing, and torch keeps them.
bool is_dense(const Layout& layout) {
  if (layout.numel() == 0) return true;
  Order order{};
  int n = 0;
  for (int d = 0; d < layout.ndim; ++d) {
    if (layout.shape[d] != 1) order[n++] = d;
  }
  sort_first(order, n, [&](int a, int b) { return layout.strides[a] < layout.strides[b]; });
  std::int64_t expected = 1;
  for (int i = 0; i < n; ++i) {
    if (layout.strides[order[i]] != expected) return false;
    expected *= layout.shape[order[i]];
  }
  return true;
}

// Positive when dimension `a` must lie outside `b`, negative when inside, 0 when the strides do not tell:
// a stride of 0 (an expanded dimension) says nothing, and equal strides are told apart by their sizes.
int outer_first(const Layout& layout, int a, int b) {
  const auto sa = layout.strides[a], sb = layout.strides[b];
  if (sa == 0 || sb == 0) return 0;
  if (sa != sb) return sa > sb ? 1 : -1;
  return layout.shape[a] > layout.shape[b] ? 1 : 0;
}

// Dimensions from the fastest to the slowest. An insertion sort, because the order is only partial: a dimension
// whose neighbour does not tell is compared with the next one. torch's empty_like(preserve_format) does the same.
Order fastest_first(const Layout& layout) {
  Order order{};
  for (int i = 0; i < layout.ndim; ++i) order[i] = layout.ndim - 1 - i;
  for (int i = 1; i < layout.ndim; ++i) {
    int moving = i;
    for (int below = i - 1; below >= 0; --below) {
      const int said = outer_first(layout, order[below], order[moving]);
      if (said < 0) break;
      if (said > 0) {
        std::swap(order[below], order[moving]);
        moving = below;
      }
    }
  }
  return order;
}

}  // namespace

Layout& Layout::assign(int dims, const std::int64_t* new_shape, const std::int64_t* new_strides) {
  ndim = dims;
  std::copy_n(new_shape, dims, shape.begin());
  std::copy_n(new_strides, dims, strides.begin());
  return *this;
}

std::int64_t Layout::numel() const {
  return std::accumulate(shape.begin(), shape.begin() + ndim, std::int64_t{1}, std::multiplies<>());
}

bool Layout::operator==(const Layout& other) const {
  return ndim == other.ndim && std::equal(shape.begin(), shape.begin() + ndim, other.shape.begin()) &&
         std::equal(strides.begin(), strides.begin() + ndim, other.strides.begin());
}

Layout dense_like(const Layout& source) {
  if (is_dense(source)) return source;
  Layout dense = source;
  const Order order = fastest_first(source);
  std::int64_t stride = 1;
  for (int i = 0; i < source.ndim; ++i) {
    dense.strides[order[i]] = stride;
    stride *= std::max<std::int64_t>(source.shape[order[i]], 1);
  }
  return dense;
}

GatherPlan plan_gather(const Layout& source, const Layout& dense) {
  GatherPlan plan;
  plan.numel = source.numel();
  if (plan.numel == 0) return plan;
  if (source == dense) {
    plan.ndim = 1;
    plan.shape[0] = plan.numel;
    plan.source_strides[0] = 1;
    return plan;
  }
  Order order{};
  int n = 0;
  for (int d = 0; d < source.ndim; ++d) {
    if (source.shape[d] != 1) order[n++] = d;
  }
  sort_first(order, n, [&](int a, int b) { return dense.strides[a] > dense.strides[b]; });
  for (int i = 0; i < n; ++i) {
    const auto size = source.shape[order[i]], stride = source.strides[order[i]];
    const int last = plan.ndim - 1;
    if (last >= 0 && plan.source_strides[last] == stride * size) {
      plan.shape[last] *= size;
      plan.source_strides[last] = stride;
    } else {
      plan.shape[plan.ndim] = size;
      plan.source_strides[plan.ndim++] = stride;
    }
  }
  return plan;
}

}  // namespace nntap
