#include "ops/checks.h"
#include "ops/gradient_rules.h"
#include "ops/window.h"

namespace pycnn::ops {
namespace {

void expect_attributes(const Resize2d& op) {
  expect_pair(op.output_size, "output_size", 1);
  if (op.mode > ResizeMode::kNearestRoundUp) {
    fail<ArgumentError>("resize mode ", static_cast<int>(op.mode), " is unknown");
  }
  if (op.grid > ResizeGrid::kAlignCorners) {
    fail<ArgumentError>("resize grid ", static_cast<int>(op.grid), " is unknown");
  }
  if (!op.scales.empty() && op.scales.size() != 2) {
    fail<ArgumentError>("scales has ", op.scales.size(), " values, expected none or 2");
  }
  for (const double scale : op.scales) {
    expect_finite(scale, "scales");
    expect_positive(scale, "scales");
  }
}

}  // namespace

std::vector<TensorSpec> Resize2d::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_image(inputs[0], "input");
  expect_attributes(*this);
  return {
      {{dim(inputs[0], 0), output_size[0], output_size[1], dim(inputs[0], 3)}, inputs[0].dtype}};
}

void Resize2d::gradient(GradientContext& context) const {
  const Resize2dGrad op{*this, image_size(context.input_spec(0))};
  context.set_grad_input(0, context.emit(op, {context.grad_output()}));
}

std::vector<TensorSpec> Resize2dGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "grad_output");
  const TensorSpec& grad = inputs[0];
  expect_image(grad, "grad_output");
  expect_attributes(resize);
  expect_pair(input_size, "input_size", 1);
  expect_shape(grad, "grad_output",
               {dim(grad, 0), resize.output_size[0], resize.output_size[1], dim(grad, 3)},
               "the resized image, (N, OH, OW, C)");
  return {{{dim(grad, 0), input_size[0], input_size[1], dim(grad, 3)}, grad.dtype}};
}

// The op is linear: its gradient resizes.
void Resize2dGrad::gradient(GradientContext& context) const {
  context.set_grad_input(0, context.emit(resize, {context.grad_output()}));
}

}  // namespace pycnn::ops
