#pragma once
#include "pycnn/ops/op.h"

/// \file
/// Moving data: csrc/ops/concat.cpp, ops/pad.cpp, ops/reshape.cpp, ops/transpose.cpp, ops/take.cpp,
/// ops/take_windows.cpp
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

/// Windows of images, some mirrored, with a box in each that hides what is there: the augmentation
/// of batches that are gathered from a data set.
///
///   output[n, y, x, c] = box_fill[c]                       within rows [y0, y1), columns [x0, x1)
///                        images[i, top + y, left + x', c]  else; fill outside of image i
///   (i, top, left, mirrored, y0, y1, x0, x1) = places[n], x' = mirrored ? width - 1 - x : x
///
/// A number i that no image has gives fill alone.
///
/// inputs: images (M, H, W, C) u8 or float, places (N, 8) i64.
/// outputs: (N, height, width, C). No gradient exists.
struct TakeWindows {
  Pair size = {1, 1};            ///< height and width
  double fill = 0.0;             ///< outside of the image; the images' type must be able to hold it
  std::vector<double> box_fill;  ///< empty: 0, or one value, or C values; likewise
  PYCNN_OP("take_windows", size, fill, box_fill)
};

}  // namespace pycnn::ops
