#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

constexpr const char* kInputs = "input, scale, shift, running_mean, running_var";

void expect_channels(const TensorSpec& spec, const char* name, std::int64_t channels) {
  expect_shape(spec, name, {channels}, "one value per channel");
}

// The five inputs of every forward form.
void expect_forward(Specs inputs, double eps) {
  expect_inputs(inputs, 5, kInputs);
  expect_positive(eps, "eps");
  expect_least_rank(inputs[0], "input", 2, "(..., C)");
  expect_image_type(inputs[0], "input");
  const char* const names[] = {"input", "scale", "shift", "running_mean", "running_var"};
  for (std::size_t i = 1; i < 5; ++i) expect_parameter_type(inputs[i], names[i], inputs[0]);
  const std::int64_t channels = dim(inputs[0], -1);
  if (channels < 1) fail<ShapeError>("input ", inputs[0].shape, " has no channel");
  for (std::size_t i = 1; i < 5; ++i) {
    if (inputs[i].shape == Shape{channels}) continue;
    const bool channels_first = rank(inputs[0]) == 4 && inputs[i].shape == Shape{dim(inputs[0], 1)};
    fail<ShapeError>("input has ", channels, " channels, ", names[i], " is ", inputs[i].shape,
                     channels_first ? "\n  hint: axis 1 looks like the channels; pycnn is "
                                      "channels-last, try x.transpose(0, 2, 3, 1)"
                                    : "");
  }
}

// Inputs of both backward forms: input, then vectors, then grad_output.
std::vector<TensorSpec> infer_backward(Specs inputs, const char* second, const char* third) {
  expect_least_rank(inputs[0], "input", 2, "(..., C)");
  expect_image_type(inputs[0], "input");
  expect_parameter_type(inputs[1], "scale", inputs[0]);
  expect_parameter_type(inputs[2], second, inputs[0]);
  expect_parameter_type(inputs[3], third, inputs[0]);
  expect_dtype(inputs[4], "grad_output", inputs[0].dtype);
  const std::int64_t channels = dim(inputs[0], -1);
  expect_channels(inputs[1], "scale", channels);
  expect_channels(inputs[2], second, channels);
  expect_channels(inputs[3], third, channels);
  expect_shape(inputs[4], "grad_output", inputs[0].shape, "the input's shape");
  const TensorSpec vector{{channels}, parameter_type(inputs[0].dtype)};
  return {inputs[0], vector, vector};
}

// The optional last input: `rows` values of each channel of input 0.
void expect_known(Specs inputs, const char* name, std::int64_t rows) {
  expect_parameter_type(inputs.back(), name, inputs[0]);
  expect_shape(inputs.back(), name, {rows, dim(inputs[0], -1)}, "rows of one value per channel");
}

// Inputs 1, 2, ...: one value per channel of input 0.
void expect_vectors(Specs inputs, std::initializer_list<const char*> names) {
  std::size_t i = 1;
  for (const char* name : names) {
    expect_parameter_type(inputs[i], name, inputs[0]);
    expect_channels(inputs[i++], name, dim(inputs[0], -1));
  }
}

void expect_like_input(Specs inputs, std::size_t i, const char* name) {
  expect_dtype(inputs[i], name, inputs[0].dtype);
  expect_shape(inputs[i], name, inputs[0].shape, "the input's shape");
}

// The backward forms give all three results, in the order of the forward form's inputs.
void set_three(GradientContext& context, Symbol first) {
  for (int i = 0; i < 3; ++i) context.set_grad_input(i, GradientContext::result(first, i));
}

}  // namespace

// ---- As recorded

std::vector<TensorSpec> BatchNorm::infer(Specs inputs) const {
  expect_forward(inputs, eps);
  expect_within(momentum, "momentum", 0.0, 1.0);
  return {inputs[0]};
}

void BatchNorm::gradient(GradientContext&) const {
  no_gradient(" before the mode is known\n  hint: differentiate specialize(graph, mode) instead");
}

// ---- Training

std::vector<TensorSpec> BatchNormTrain::infer(Specs inputs) const {
  expect_forward(inputs, eps);
  expect_within(momentum, "momentum", 0.0, 1.0);
  const std::int64_t channels = dim(inputs[0], -1);
  const std::int64_t values = element_count(inputs[0].shape) / channels;
  if (values < 2) {
    fail<ArgumentError>("training needs at least 2 values per channel, input ", inputs[0].shape,
                        " has ", values,
                        "\n  hint: use a larger batch, or drop the last short one");
  }
  const TensorSpec vector{{channels}, parameter_type(inputs[0].dtype)};
  return {inputs[0], vector, vector, vector, vector};
}

void BatchNormTrain::gradient(GradientContext& context) const {
  for (int i = 1; i < 5; ++i) {
    if (context.has_grad_output(i)) no_gradient(" through its statistics");
  }
  // The running statistics, which a layer used twice takes from its first use, reach none of the
  // results that may have a gradient here.
  set_three(context, context.emit(BatchNormTrainGrad{},
                                  {context.input(0), context.input(1), context.output(1),
                                   context.output(2), context.grad_output()}));
}

std::vector<TensorSpec> BatchNormTrainGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 5, 6, "input, scale, batch_mean, batch_inv_std, grad_output, sums or none");
  std::vector<TensorSpec> results = infer_backward(inputs, "batch_mean", "batch_inv_std");
  if (inputs.size() == 6) expect_known(inputs, "sums", 2);
  return results;
}

void BatchNormTrainGrad::gradient(GradientContext&) const { no_gradient(); }

// ---- Training in two halves

std::vector<TensorSpec> BatchNormStatistics::infer(Specs inputs) const {
  const bool measured = inputs.size() == 6;
  const std::vector<TensorSpec> whole =
      BatchNormTrain{eps, momentum}.infer(measured ? inputs.first(5) : inputs);
  if (measured) expect_known(inputs, "moments", 3);
  return {whole[1], whole[2], whole[3], whole[4], whole[1], whole[1]};
}

void BatchNormStatistics::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> BatchNormApply::infer(Specs inputs) const {
  const bool residual_norm = inputs.size() > 5;
  if (!epilogue.residual)
    expect_inputs(inputs, 4, "input, batch_mean, factor, offset");
  else
    expect_inputs(inputs, residual_norm ? 8 : 5,
                  "input, batch_mean, factor, offset, residual, and residual_mean, "
                  "residual_factor, residual_offset or none");
  expect_least_rank(inputs[0], "input", 2, "(..., C)");
  expect_image_type(inputs[0], "input");
  expect_vectors(inputs, {"batch_mean", "factor", "offset"});
  if (epilogue.residual) expect_like_input(inputs, 4, "residual");
  const char* const names[] = {"residual_mean", "residual_factor", "residual_offset"};
  for (std::size_t i = 5; i < inputs.size(); ++i) {
    expect_parameter_type(inputs[i], names[i - 5], inputs[0]);
    expect_channels(inputs[i], names[i - 5], dim(inputs[0], -1));
  }
  expect_rectifier(epilogue.activation, epilogue.slope);
  if (epilogue.moments) fail<ArgumentError>("only a convolution gives moments");
  if (!epilogue.signs) return {inputs[0]};
  if (epilogue.activation != ActivationKind::kRelu)
    fail<ArgumentError>("signs are those of a relu, activation is ",
                        activation_name(epilogue.activation));
  return {inputs[0], signs_of(inputs[0])};
}

void BatchNormApply::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> BatchNormApplyGrad::infer(Specs inputs) const {
  expect_inputs(
      inputs, 7, 8,
      "input, scale, batch_mean, batch_inv_std, factor, offset, grad_output, sums or none");
  expect_rectifier(activation, slope);
  expect_least_rank(inputs[0], "input", 2, "(..., C)");
  expect_image_type(inputs[0], "input");
  expect_vectors(inputs, {"scale", "batch_mean", "batch_inv_std", "factor", "offset"});
  expect_like_input(inputs, 6, "grad_output");
  if (inputs.size() == 8) expect_known(inputs, "sums", 2);
  return {inputs[0], inputs[1], inputs[1]};
}

void BatchNormApplyGrad::gradient(GradientContext&) const { no_gradient(); }

// ---- With a max pool behind it

std::vector<TensorSpec> BatchNormMaxPool::infer(Specs inputs) const {
  expect_inputs(inputs, 4, "input, batch_mean, factor, offset");
  const BatchNormApply norm{{false, activation, slope}};
  return pool.infer(norm.infer(inputs));
}

void BatchNormMaxPool::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> BatchNormMaxPoolGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 7, "input, scale, batch_mean, batch_inv_std, factor, offset, grad_output");
  expect_rectifier(forward.activation, forward.slope);
  const TensorSpec output = forward.pool.infer(inputs.first(1))[0];
  expect_image_type(inputs[0], "input");
  expect_vectors(inputs, {"scale", "batch_mean", "batch_inv_std", "factor", "offset"});
  expect_dtype(inputs[6], "grad_output", inputs[0].dtype);
  expect_shape(inputs[6], "grad_output", output.shape, "the output of the pool");
  return {inputs[0], inputs[1], inputs[1]};
}

void BatchNormMaxPoolGrad::gradient(GradientContext&) const { no_gradient(); }

// ---- Inference

std::vector<TensorSpec> BatchNormInference::infer(Specs inputs) const {
  expect_forward(inputs, eps);
  return {inputs[0]};
}

void BatchNormInference::gradient(GradientContext& context) const {
  if (context.needs_grad(3) || context.needs_grad(4)) {
    no_gradient(" for running statistics");
  }
  set_three(context, context.emit(BatchNormInferenceGrad{eps},
                                  {context.input(0), context.input(1), context.input(3),
                                   context.input(4), context.grad_output()}));
}

std::vector<TensorSpec> BatchNormInferenceGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 5, "input, scale, running_mean, running_var, grad_output");
  expect_positive(eps, "eps");
  return infer_backward(inputs, "running_mean", "running_var");
}

void BatchNormInferenceGrad::gradient(GradientContext&) const { no_gradient(); }

// ---- FoldBatchNorm

std::vector<TensorSpec> FoldBatchNorm::infer(Specs inputs) const {
  expect_inputs(inputs, 5, 6, "weight, scale, shift, running_mean, running_var, bias or none");
  expect_positive(eps, "eps");
  expect_least_rank(inputs[0], "weight", 2, "(OC, ...)");
  const char* const names[] = {"weight", "scale", "shift", "running_mean", "running_var", "bias"};
  expect_floats(inputs, {"weight", "scale", "shift", "running_mean", "running_var", "bias"});
  for (std::size_t i = 1; i < inputs.size(); ++i) {
    expect_shape(inputs[i], names[i], {dim(inputs[0], 0)}, "one value per output channel");
  }
  return {inputs[0], {{dim(inputs[0], 0)}, inputs[0].dtype}};
}

void FoldBatchNorm::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
