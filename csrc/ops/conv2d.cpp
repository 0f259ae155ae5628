#include "ops/checks.h"
#include "ops/gradient_rules.h"
#include "ops/window.h"

namespace pycnn::ops {
namespace {

void expect_geometry(const Pair& stride, const Padding& padding, const Pair& dilation,
                     std::int64_t groups) {
  expect_pair(stride, "stride", 1);
  expect_padding(padding);
  expect_pair(dilation, "dilation", 1);
  if (groups < 1 || groups > kMaxAttribute) {
    fail<ArgumentError>("groups is ", groups, ", expected a value from 1 to ", kMaxAttribute);
  }
}

void expect_divisible(std::int64_t channels, const char* what, std::int64_t groups) {
  if (channels % groups != 0) {
    fail<ShapeError>(what, " ", channels, " are not divisible by groups ", groups);
  }
}

void expect_weight(const TensorSpec& weight) {
  expect_rank(weight, "weight", 4, "(OC, KH, KW, IC / groups)");
  for (int axis = 0; axis < 4; ++axis) {
    if (dim(weight, axis) < 1) fail<ShapeError>("weight ", weight.shape, " has an empty axis");
  }
}

std::string channels_hint(const TensorSpec& input, const TensorSpec& weight, std::int64_t groups) {
  const std::int64_t expected = checked_multiply(dim(weight, 3), groups);
  if (dim(input, 1) == expected) {
    return "\n  hint: axis 1 looks like the channels; pycnn is channels-last, try "
           "x.transpose(0, 2, 3, 1)";
  }
  // A window that is no square tells nothing: (OC, KH, KW, IC) may look likewise.
  if (checked_multiply(dim(weight, 1), groups) == dim(input, 3) &&
      dim(weight, 2) == dim(weight, 3)) {
    return "\n  hint: the weight looks like (OC, IC / groups, KH, KW); in memory it is (OC, KH, "
           "KW, IC / groups), try weight.transpose(0, 2, 3, 1)";
  }
  return "";
}

Pair kernel_of(const TensorSpec& weight) { return {dim(weight, 1), dim(weight, 2)}; }

}  // namespace

// ---- Conv2d

std::vector<TensorSpec> Conv2d::infer(Specs inputs) const {
  const std::size_t extra = epilogue.residual ? 1 : 0;
  expect_inputs(
      inputs, 2 + extra, 3 + extra,
      epilogue.residual ? "input, weight, bias or none, residual" : "input, weight, bias or none");
  const bool bias = inputs.size() == 3 + extra;
  const TensorSpec& input = inputs[0];
  const TensorSpec& weight = inputs[1];
  expect_geometry(stride, padding, dilation, groups);
  expect_image(input, "input");
  expect_parameter_type(weight, "weight", input);
  if (bias) expect_parameter_type(inputs[2], "bias", input);
  expect_weight(weight);
  const std::int64_t channels = dim(input, 3);
  const std::int64_t out_channels = dim(weight, 0);
  if (channels != checked_multiply(dim(weight, 3), groups)) {
    const std::string by_groups =
        groups == 1 ? "" : cat(" (", dim(weight, 3), " in each of ", groups, " groups)");
    fail<ShapeError>("input has ", channels, channels == 1 ? " channel" : " channels",
                     ", weight expects ", checked_multiply(dim(weight, 3), groups), by_groups,
                     channels_hint(input, weight, groups));
  }
  expect_divisible(out_channels, "output channels", groups);
  if (bias) expect_shape(inputs[2], "bias", {out_channels}, "one value per output channel");
  const Pair out = count_windows(image_size(input), padding, kernel_of(weight), dilation, stride);
  const TensorSpec output{{dim(input, 0), out[0], out[1], out_channels}, input.dtype};
  expect_epilogue(epilogue, inputs, output);
  if (epilogue.moments) return {output, {{3, out_channels}, parameter_type(output.dtype)}};
  return {output};
}

void Conv2d::gradient(GradientContext& context) const {
  if (epilogue != Epilogue{}) {
    no_gradient(" once an epilogue is fused; differentiate before fusing");
  }
  const Symbol grad = context.grad_output();
  const bool bias = context.input_count() > 2 && context.needs_grad(2);
  if (context.needs_grad(0)) {
    const Conv2dGradInput op{stride, padding, dilation, groups, image_size(context.input_spec(0))};
    context.set_grad_input(0, context.emit(op, {grad, context.input(1)}));
  }
  if (context.needs_grad(1)) {
    const Conv2dGradWeight op{stride, padding, dilation, groups, kernel_of(context.input_spec(1)),
                              bias};
    const Symbol grad_weight = context.emit(op, {context.input(0), grad});
    context.set_grad_input(1, grad_weight);
    if (bias) context.set_grad_input(2, GradientContext::result(grad_weight, 1));
  } else if (bias) {
    context.set_grad_input(2, sum_to_last_axis(context, grad, context.output_spec()));
  }
}

// ---- Conv2dGradInput

std::vector<TensorSpec> Conv2dGradInput::infer(Specs inputs) const {
  const std::size_t signs = 2u + finish.residual + finish.relu,
                    first_of_sums = signs + finish.signs;
  const std::string names_of_inputs =
      cat("grad_output, weight", finish.residual ? ", residual" : "",
          finish.relu ? ", relu_output" : "", finish.signs ? ", signs" : "",
          sums.wanted ? ", input, batch_mean, factor, offset" : "");
  if (finish.signs && !finish.relu) fail<ArgumentError>("signs are given of no relu");
  expect_inputs(inputs, first_of_sums + (sums.wanted ? 4u : 0u), names_of_inputs.c_str());
  const TensorSpec& grad = inputs[0];
  const TensorSpec& weight = inputs[1];
  expect_geometry(stride, padding, dilation, groups);
  expect_pair(input_size, "input_size", 1);
  expect_image(grad, "grad_output");
  expect_parameter_type(weight, "weight", grad, "grad_output");
  expect_weight(weight);
  expect_divisible(dim(weight, 0), "output channels", groups);
  const Pair out = count_windows(input_size, padding, kernel_of(weight), dilation, stride);
  expect_shape(grad, "grad_output", {dim(grad, 0), out[0], out[1], dim(weight, 0)},
               "the output of the convolution, (N, OH, OW, OC)");
  const std::int64_t channels = checked_multiply(dim(weight, 3), groups);
  const TensorSpec grad_input{{dim(grad, 0), input_size[0], input_size[1], channels}, grad.dtype};
  for (std::size_t i = 2; i < signs; ++i) {
    const char* const name = i == 2 && finish.residual ? "residual" : "relu_output";
    expect_shape(inputs[i], name, grad_input.shape, "the shape of the gradient");
    expect_dtype(inputs[i], name, grad.dtype);
  }
  if (finish.signs) {
    const TensorSpec expected = signs_of(grad_input);
    expect_shape(inputs[signs], "signs", expected.shape, "a bit for each value of the gradient");
    expect_dtype(inputs[signs], "signs", expected.dtype);
  }
  if (!sums.wanted) return {grad_input};
  expect_rectifier(sums.activation, sums.slope);
  expect_dtype(inputs[first_of_sums], "input", grad.dtype);
  expect_shape(inputs[first_of_sums], "input", grad_input.shape, "the shape of its gradient");
  const char* const names[] = {"batch_mean", "factor", "offset"};
  for (std::size_t i = 0; i < 3; ++i) {
    const TensorSpec& vector = inputs[first_of_sums + 1 + i];
    expect_parameter_type(vector, names[i], grad, "grad_output");
    expect_shape(vector, names[i], {channels}, "one value per channel");
  }
  return {grad_input, {{2, channels}, parameter_type(grad.dtype)}};
}

// The op is linear in each input, so its gradients are the other convolution routines.
void Conv2dGradInput::gradient(GradientContext& context) const {
  if (sums.wanted) no_gradient(" once a batch norm is fused; differentiate before fusing");
  if (finish != GradientEpilogue{})
    no_gradient(" once what follows is fused; differentiate before fusing");
  const Symbol grad = context.grad_output();
  if (context.needs_grad(0)) {
    const Conv2d op{stride, padding, dilation, groups, {}};
    context.set_grad_input(0, context.emit(op, {grad, context.input(1)}));
  }
  if (context.needs_grad(1)) {
    const Conv2dGradWeight op{stride, padding, dilation, groups, kernel_of(context.input_spec(1)),
                              false};
    context.set_grad_input(1, context.emit(op, {grad, context.input(0)}));
  }
}

// ---- Conv2dGradWeight

std::vector<TensorSpec> Conv2dGradWeight::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "input, grad_output");
  const TensorSpec& input = inputs[0];
  const TensorSpec& grad = inputs[1];
  expect_geometry(stride, padding, dilation, groups);
  expect_pair(kernel_size, "kernel_size", 1);
  expect_image(input, "input");
  expect_image(grad, "grad_output");
  expect_image_types(inputs, {"input", "grad_output"});
  const std::int64_t out_channels = dim(grad, 3);
  expect_divisible(dim(input, 3), "input channels", groups);
  expect_divisible(out_channels, "output channels", groups);
  const Pair out = count_windows(image_size(input), padding, kernel_size, dilation, stride);
  expect_shape(grad, "grad_output", {dim(input, 0), out[0], out[1], out_channels},
               "the output of the convolution, (N, OH, OW, OC)");
  const DType dtype = parameter_type(input.dtype);
  std::vector<TensorSpec> outputs = {
      {{out_channels, kernel_size[0], kernel_size[1], dim(input, 3) / groups}, dtype}};
  if (bias) outputs.push_back({{out_channels}, dtype});
  return outputs;
}

void Conv2dGradWeight::gradient(GradientContext& context) const {
  const Symbol grad = context.grad_output();
  if (context.needs_grad(0)) {
    const Conv2dGradInput op{stride, padding, dilation, groups, image_size(context.input_spec(0))};
    context.set_grad_input(0, context.emit(op, {context.input(1), grad}));
  }
  if (context.needs_grad(1)) {
    std::vector<Symbol> inputs = {context.input(0), grad};
    if (bias && context.has_grad_output(1)) inputs.push_back(context.grad_output(1));
    const Conv2d op{stride, padding, dilation, groups, {}};
    context.set_grad_input(1, context.emit(op, std::move(inputs)));
  }
}

}  // namespace pycnn::ops
