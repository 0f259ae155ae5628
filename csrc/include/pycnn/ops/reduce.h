#pragma once
#include "pycnn/ops/op.h"

/// \file
/// Reductions: csrc/ops/reduce.cpp, ops/arg_max.cpp
namespace pycnn::ops {

/// inputs: input float.
/// outputs: input's shape with `axes` (sorted, distinct, not negative) removed, or 1 with
/// keep_dims. Of a maximum, NaN wins, and equal largest elements share the gradient evenly.
struct Reduce {
  Reduction kind = Reduction::kSum;  ///< sum, mean or maximum
  std::vector<std::int64_t> axes;    ///< to reduce; none: the input as it is
  bool keep_dims = false;            ///< keeps reduced axes with length 1
  PYCNN_OP("reduce", kind, axes, keep_dims)
};

/// Where along `axis` (negative counts from the end) the largest element is: the first of equal
/// ones, or with `last` the last; NaN counts as largest.
/// inputs: input float, the axis not empty.
/// outputs: i64, input's shape without the axis, or 1 there with keep_dims. No gradient.
struct ArgMax {
  std::int64_t axis = -1;  ///< searched
  bool keep_dims = false;  ///< keeps the axis with length 1
  bool last = false;       ///< of equal elements, the last and not the first
  PYCNN_OP("arg_max", axis, keep_dims, last)
};

/// NumPy broadcast to `shape`.
/// inputs: input.
/// outputs: (shape)
struct Broadcast {
  Shape shape;  ///< of the output; the input's axes align with its last ones
  PYCNN_OP("broadcast", shape)
};

}  // namespace pycnn::ops
