#include <algorithm>

#include "ops/checks.h"
#include "ops/gradient_rules.h"
#include "ops/window.h"

namespace pycnn::ops {
namespace {

// Windows that start in the padding before the image and are checked one by one.
constexpr std::int64_t kMaxLeading = 4096;

// Whether every window has a cell inside the image. Windows that start inside trivially do, and
// with padding of at most half the extent a window that starts before the image reaches its first
// cell; only a dilation larger than the image can step over it.
bool all_windows_touch(const WindowAxis& a, std::int64_t windows) {
  if (a.dilation <= a.size || a.before == 0) return true;
  const std::int64_t leading = std::min(windows, (a.before + a.stride - 1) / a.stride);
  if (leading > kMaxLeading) return false;
  for (std::int64_t window = 0; window < leading; ++window) {
    const std::int64_t missing = a.before - window * a.stride;
    const std::int64_t first_inside = (a.dilation - missing % a.dilation) % a.dilation;
    if (first_inside >= a.size) return false;
  }
  return true;
}

// (OH, OW) after all checks of the attributes.
Pair pool_windows(const Pair& size, const Padding& padding, const Pair& kernel,
                  const Pair& dilation, const Pair& stride, bool ceil_mode) {
  expect_pair(kernel, "kernel_size", 1);
  expect_pair(stride, "stride", 1);
  expect_padding(padding);
  expect_pair(dilation, "dilation", 1);
  Pair counts;
  for (int which = 0; which < 2; ++which) {
    const WindowAxis axis = window_axis(which, size, padding, kernel, dilation, stride);
    if (std::max(axis.before, axis.after) > axis.extent() / 2) {
      const std::string dilated = dilation == Pair{1, 1} ? "" : cat(" with dilation ", dilation);
      fail<ArgumentError>("padding ", padding, " exceeds half of kernel_size ", kernel, dilated,
                          "; a window would lie fully outside the image");
    }
    counts[which] = count_windows(axis, ceil_mode ? Rounding::kCeil : Rounding::kFloor);
    if (!all_windows_touch(axis, counts[which])) {
      fail<ShapeError>("a window would step over the image along the ", axis.name, ": dilation ",
                       axis.dilation, ", input ", axis.size, ", padding ", axis.before, " + ",
                       axis.after, ", kernel ", axis.kernel);
    }
  }
  return counts;
}

TensorSpec pooled(const TensorSpec& input, const Pair& windows) {
  return {{dim(input, 0), windows[0], windows[1], dim(input, 3)}, input.dtype};
}

TensorSpec infer_global(Specs inputs) {
  expect_inputs(inputs, 1, "input");
  expect_image(inputs[0], "input");
  return {{dim(inputs[0], 0), dim(inputs[0], 3)}, inputs[0].dtype};
}

}  // namespace

// ---- MaxPool2d

std::vector<TensorSpec> MaxPool2d::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_image(inputs[0], "input");
  return {pooled(inputs[0], pool_windows(image_size(inputs[0]), padding, kernel_size, dilation,
                                         stride, ceil_mode))};
}

void MaxPool2d::gradient(GradientContext& context) const {
  context.set_grad_input(
      0, context.emit(MaxPool2dGrad{*this}, {context.input(0), context.grad_output()}));
}

std::vector<TensorSpec> MaxPool2dGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "input, grad_output");
  const TensorSpec output = pool.infer(inputs.first(1))[0];
  expect_image_types(inputs, {"input", "grad_output"});
  expect_shape(inputs[1], "grad_output", output.shape, "the output of the pool");
  return {inputs[0]};
}

void MaxPool2dGrad::gradient(GradientContext&) const { no_gradient(); }

// ---- AvgPool2d

std::vector<TensorSpec> AvgPool2d::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_image(inputs[0], "input");
  return {pooled(inputs[0], pool_windows(image_size(inputs[0]), padding, kernel_size, {1, 1},
                                         stride, ceil_mode))};
}

void AvgPool2d::gradient(GradientContext& context) const {
  const AvgPool2dGrad op{*this, image_size(context.input_spec(0))};
  context.set_grad_input(0, context.emit(op, {context.grad_output()}));
}

std::vector<TensorSpec> AvgPool2dGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "grad_output");
  const TensorSpec& grad = inputs[0];
  expect_image(grad, "grad_output");
  expect_pair(input_size, "input_size", 1);
  const TensorSpec input{{dim(grad, 0), input_size[0], input_size[1], dim(grad, 3)}, grad.dtype};
  expect_shape(grad, "grad_output", pool.infer({&input, 1})[0].shape, "the output of the pool");
  return {input};
}

// The mean is linear: the gradient of its gradient is the mean again.
void AvgPool2dGrad::gradient(GradientContext& context) const {
  context.set_grad_input(0, context.emit(pool, {context.grad_output()}));
}

// ---- AdaptiveAvgPool2d

std::vector<TensorSpec> AdaptiveAvgPool2d::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_image(inputs[0], "input");
  expect_pair(output_size, "output_size", 1);
  return {pooled(inputs[0], output_size)};
}

void AdaptiveAvgPool2d::gradient(GradientContext& context) const {
  const AdaptiveAvgPool2dGrad op{image_size(context.input_spec(0))};
  context.set_grad_input(0, context.emit(op, {context.grad_output()}));
}

std::vector<TensorSpec> AdaptiveAvgPool2dGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "grad_output");
  expect_image(inputs[0], "grad_output");
  expect_pair(input_size, "input_size", 1);
  return {pooled(inputs[0], input_size)};
}

void AdaptiveAvgPool2dGrad::gradient(GradientContext& context) const {
  const AdaptiveAvgPool2d op{image_size(context.input_spec(0))};
  context.set_grad_input(0, context.emit(op, {context.grad_output()}));
}

// ---- Global pools

std::vector<TensorSpec> GlobalAvgPool2d::infer(Specs inputs) const {
  return {infer_global(inputs)};
}

void GlobalAvgPool2d::gradient(GradientContext& context) const {
  const GlobalAvgPool2dGrad op{image_size(context.input_spec(0))};
  context.set_grad_input(0, context.emit(op, {context.grad_output()}));
}

std::vector<TensorSpec> GlobalAvgPool2dGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "grad_output");
  expect_rank(inputs[0], "grad_output", 2, "(N, C)");
  expect_image_type(inputs[0], "grad_output");
  expect_pair(input_size, "input_size", 1);
  if (dim(inputs[0], 1) < 1) fail<ShapeError>("grad_output ", inputs[0].shape, " has no channel");
  return {{{dim(inputs[0], 0), input_size[0], input_size[1], dim(inputs[0], 1)}, inputs[0].dtype}};
}

void GlobalAvgPool2dGrad::gradient(GradientContext& context) const {
  context.set_grad_input(0, context.emit(GlobalAvgPool2d{}, {context.grad_output()}));
}

std::vector<TensorSpec> GlobalMaxPool2d::infer(Specs inputs) const {
  return {infer_global(inputs)};
}

void GlobalMaxPool2d::gradient(GradientContext& context) const {
  context.set_grad_input(
      0, context.emit(GlobalMaxPool2dGrad{}, {context.input(0), context.grad_output()}));
}

std::vector<TensorSpec> GlobalMaxPool2dGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "input, grad_output");
  const TensorSpec output = infer_global(inputs.first(1));
  expect_image_types(inputs, {"input", "grad_output"});
  expect_shape(inputs[1], "grad_output", output.shape, "(N, C)");
  return {inputs[0]};
}

void GlobalMaxPool2dGrad::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
