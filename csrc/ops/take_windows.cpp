#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {

std::vector<TensorSpec> TakeWindows::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "images, places");
  const TensorSpec& images = inputs[0];
  const TensorSpec& places = inputs[1];
  expect_rank(images, "images", 4, "(M, H, W, C)");
  if (images.dtype != DType::kUInt8) expect_float(images, "images");
  expect_dtype(places, "places", DType::kInt64);
  expect_rank(places, "places", 2, "(N, 8)");
  if (dim(places, 1) != 8) {
    fail<ShapeError>("places ", places.shape, " has ", dim(places, 1),
                     " columns, expected 8: image, top, left, mirrored, and the first and last but "
                     "one row and column of a box");
  }
  expect_pair(size, "size", 1);
  expect_holds(images.dtype, fill, "fill");
  const auto fills = static_cast<std::int64_t>(box_fill.size());
  const std::int64_t channels = dim(images, 3);
  if (fills > 1 && fills != channels) {
    fail<ArgumentError>("box_fill has ", fills, " values, the images have ", channels,
                        channels == 1 ? " channel" : " channels", "; give none, one or ", channels);
  }
  for (const double value : box_fill) expect_holds(images.dtype, value, "box_fill");
  return {{{dim(places, 0), size[0], size[1], channels}, images.dtype}};
}

void TakeWindows::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
