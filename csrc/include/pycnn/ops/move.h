#pragma once
#include "pycnn/ops/op.h"

/// \file
/// Moving data: csrc/ops/concat.cpp, ops/pad.cpp, ops/reshape.cpp, ops/transpose.cpp, ops/take.cpp
namespace pycnn::ops {

/// inputs: one or more, equal but for `axis` (negative counts from the end).
/// outputs: their concatenation
struct Concat {
  std::int64_t axis = -1;
  PYCNN_OP("concat", axis)
};

/// The box [begin, begin + size) of a tensor. A size of -1 means to the end.
/// inputs: input.
/// outputs: (size)
struct Slice {
  std::vector<std::int64_t> begin;
  std::vector<std::int64_t> size;
  PYCNN_OP("slice", begin, size)
};

/// Surrounds with `value`.
/// inputs: input.
/// outputs: axis i grows by before[i] + after[i] (both not negative)
struct Pad {
  std::vector<std::int64_t> before;
  std::vector<std::int64_t> after;
  double value = 0.0;
  PYCNN_OP("pad", before, after, value)
};

/// Same elements, other axes. One entry may be -1 (what is left), 0 keeps the input's axis. Costs
/// nothing at run time.
struct Reshape {
  Shape shape;
  PYCNN_OP("reshape", shape)
};

/// output axis i is input axis permutation[i].
struct Transpose {
  std::vector<std::int64_t> permutation;
  PYCNN_OP("transpose", permutation)
};

/// output[i, ...] = input[indices[i], ...] along the first axis; index -1 gives zeros (partial
/// connection tables).
struct Take {
  std::vector<std::int64_t> indices;
  PYCNN_OP("take", indices)
};

/// inputs: grad_output (len(indices), ...).
/// outputs: grad_input (rows, ...), rows not named are zero; fixed order of sums
struct TakeGrad {
  std::vector<std::int64_t> indices;
  std::int64_t rows = 0;
  PYCNN_OP("take_grad", indices, rows)
};

}  // namespace pycnn::ops
