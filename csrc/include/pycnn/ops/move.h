#pragma once
#include "pycnn/ops/op.h"

/// \file
/// Moving data: csrc/ops/concat.cpp, ops/pad.cpp, ops/reshape.cpp, ops/transpose.cpp, ops/take.cpp
namespace pycnn::ops {

/// inputs: one or more, equal but for `axis` (negative counts from the end).
/// outputs: their concatenation
struct Concat {
  std::int64_t axis = -1;  ///< the joined one; -1, the last, holds the channels of images
  PYCNN_OP("concat", axis)
};

/// The box [begin, begin + size) of a tensor. A size of -1 means to the end.
/// inputs: input.
/// outputs: (size)
struct Slice {
  std::vector<std::int64_t> begin;  ///< first index, per axis
  std::vector<std::int64_t> size;   ///< number of indices, per axis
  PYCNN_OP("slice", begin, size)
};

/// Surrounds with `value`.
/// inputs: input.
/// outputs: axis i grows by before[i] + after[i] (both not negative)
struct Pad {
  std::vector<std::int64_t> before;  ///< cells added in front, per axis
  std::vector<std::int64_t> after;   ///< cells added behind, per axis
  double value = 0.0;  ///< of the added cells; the input's type must be able to hold it
  PYCNN_OP("pad", before, after, value)
};

/// Same elements, other axes. One entry may be -1 (what is left), 0 keeps the input's axis. Costs
/// nothing at run time.
struct Reshape {
  Shape shape;  ///< of the output, with 0 and -1 as above
  PYCNN_OP("reshape", shape)
};

/// output axis i is input axis permutation[i].
struct Transpose {
  std::vector<std::int64_t> permutation;  ///< each axis of the input once, from 0
  PYCNN_OP("transpose", permutation)
};

/// output[i, ...] = input[indices[i], ...] along the first axis; index -1 gives zeros (partial
/// connection tables).
struct Take {
  std::vector<std::int64_t> indices;  ///< rows to take, in this order, repeats allowed
  PYCNN_OP("take", indices)
};

/// inputs: grad_output (len(indices), ...).
/// outputs: grad_input (rows, ...), rows not named are zero; fixed order of sums
struct TakeGrad {
  std::vector<std::int64_t> indices;  ///< of the Take
  std::int64_t rows = 0;              ///< length of the first axis of the Take's input
  PYCNN_OP("take_grad", indices, rows)
};

}  // namespace pycnn::ops
