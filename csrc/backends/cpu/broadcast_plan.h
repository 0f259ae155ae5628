#pragma once
#include <algorithm>
#include <cstring>
#include <span>

#include "backends/backend.h"
#include "pycnn/error.h"

// NumPy broadcasting of one or two inputs, worked out once at selection. Axes of size 1 are dropped
// and adjacent axes that both inputs walk alike are joined, so most problems end with one or two.
namespace pycnn::cpu {

struct BroadcastPlan {
  static constexpr int kMaxAxes = 8;
  int rank = 1;  // at least 1; the innermost axis is the last
  std::int64_t size[kMaxAxes] = {1};
  std::int64_t stride[2][kMaxAxes] = {};  // in elements; 0 along a broadcast axis
  std::int64_t count = 1;                 // elements of the output

  std::int64_t inner() const noexcept { return size[rank - 1]; }
  std::int64_t inner_stride(int input) const noexcept { return stride[input][rank - 1]; }
};

// Throws UnsupportedError when more than kMaxAxes axes are left.
inline BroadcastPlan plan_broadcast(const Shape& output, Specs inputs) {
  BroadcastPlan plan;
  std::int64_t next[2] = {1, 1};  // stride of the axis at hand, were it not broadcast
  int filled = 0;                 // axes found so far, innermost first
  const auto rank = static_cast<std::int64_t>(output.size());
  for (std::int64_t axis = rank - 1; axis >= 0; --axis) {
    const std::int64_t size = output[static_cast<std::size_t>(axis)];
    plan.count *= size;
    if (size == 1) continue;
    std::int64_t stride[2] = {0, 0};
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Shape& shape = inputs[i].shape;
      const std::int64_t own = axis - rank + static_cast<std::int64_t>(shape.size());
      if (own < 0 || shape[static_cast<std::size_t>(own)] == 1) continue;
      stride[i] = next[i];
      next[i] *= size;
    }
    bool joins = filled > 0;
    if (joins) {
      for (int i = 0; i < 2; ++i)
        joins = joins && stride[i] == plan.stride[i][filled - 1] * plan.size[filled - 1];
    }
    if (joins) {
      plan.size[filled - 1] *= size;
      continue;
    }
    if (filled == BroadcastPlan::kMaxAxes)
      throw UnsupportedError("broadcasting to " + to_string(output) +
                             " needs more than 8 axes that cannot be joined");
    plan.size[filled] = size;
    plan.stride[0][filled] = stride[0];
    plan.stride[1][filled] = stride[1];
    ++filled;
  }
  plan.rank = std::max(filled, 1);
  std::reverse(plan.size, plan.size + plan.rank);
  for (auto& strides : plan.stride) std::reverse(strides, strides + plan.rank);
  return plan;
}

inline std::vector<std::byte> to_bytes(const BroadcastPlan& plan) {
  std::vector<std::byte> bytes(sizeof plan);
  std::memcpy(bytes.data(), &plan, sizeof plan);
  return bytes;
}

// Calls f(position, {first, second}, n) for the pieces of innermost rows that make up the output's
// elements [begin, end): n elements from `position`, which come from the inputs' elements at
// `first` and `second`, spaced by their inner strides.
template <class F>
void for_each_segment(const BroadcastPlan& plan, std::int64_t begin, std::int64_t end, F&& f) {
  const std::int64_t inner = plan.inner();
  while (begin < end) {
    std::int64_t row = begin / inner;
    const std::int64_t column = begin - row * inner;
    const std::int64_t n = std::min(inner - column, end - begin);
    std::int64_t offset[2] = {column * plan.inner_stride(0), column * plan.inner_stride(1)};
    for (int axis = plan.rank - 2; axis >= 0; --axis) {
      const std::int64_t index = row % plan.size[axis];
      row /= plan.size[axis];
      offset[0] += index * plan.stride[0][axis];
      offset[1] += index * plan.stride[1][axis];
    }
    f(begin, offset, n);
    begin += n;
  }
}

}  // namespace pycnn::cpu
