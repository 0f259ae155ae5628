#include <cmath>

#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

void expect_one(const TensorSpec& spec, const char* name, DType dtype) {
  expect_dtype(spec, name, dtype);
  expect_shape(spec, name, {1}, "one number");
}

// A tensor that goes with the parameter: gradient, velocity, average.
void expect_like(const TensorSpec& spec, const char* name, const TensorSpec& parameter,
                 const char* of) {
  expect_shape(spec, name, parameter.shape, of);
  expect_dtype(spec, name, parameter.dtype);
}

void expect_update(Specs inputs, bool clipped, double weight_decay, double rate_scale) {
  const TensorSpec& parameter = inputs[0];
  expect_float(parameter, "parameter");
  expect_like(inputs[1], "gradient", parameter, "the parameter's shape");
  expect_one(inputs[2], "learning_rate", DType::kFloat32);
  expect_finite(weight_decay, "weight_decay");
  if (weight_decay < 0.0) {
    fail<ArgumentError>("weight_decay is ", weight_decay, ", expected at least 0");
  }
  expect_finite(rate_scale, "rate_scale");
  if (rate_scale < 0.0) fail<ArgumentError>("rate_scale is ", rate_scale, ", expected at least 0");
  if (!clipped) return;
  expect_shape(inputs.back(), "factor", {}, "a scalar");
  expect_dtype(inputs.back(), "factor", parameter.dtype);
}

// In [0, 1).
void expect_decay(double value, const char* name) {
  if (!(value >= 0.0 && value < 1.0)) {
    fail<ArgumentError>(name, " is ", value, ", expected a number from 0 up to but not 1");
  }
}

}  // namespace

std::vector<TensorSpec> Increment::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "counter");
  expect_one(inputs[0], "counter", DType::kInt64);
  return {inputs[0]};
}

void Increment::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> ClipFactor::infer(Specs inputs) const {
  expect_inputs(inputs, 1, std::size_t{1} << 20, "gradients");
  if (!(max_norm > 0.0)) {
    fail<ArgumentError>("max_norm is ", max_norm, ", expected a number above 0");
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    expect_float(inputs[i], "gradient");
    if (inputs[i].dtype != inputs[0].dtype) {
      fail<DTypeError>("gradient ", i, " is ", inputs[i].dtype, ", gradient 0 is ", inputs[0].dtype,
                       "; both must be the same");
    }
  }
  const TensorSpec scalar{{}, inputs[0].dtype};
  return {scalar, scalar};
}

void ClipFactor::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> LossScale::infer(Specs inputs) const {
  if (growth_interval < 1)
    fail<ArgumentError>("growth_interval is ", growth_interval, ", expected at least 1");
  if (!(max_norm > 0.0))
    fail<ArgumentError>("max_norm is ", max_norm, ", expected a number above 0");
  expect_inputs(inputs, 3, "norm, scale, good_steps");
  expect_floats(inputs.first(2), {"norm", "scale"});
  expect_shape(inputs[0], "norm", {}, "a scalar");
  expect_shape(inputs[1], "scale", {}, "a scalar");
  expect_one(inputs[2], "good_steps", DType::kInt64);
  return {inputs[0], inputs[0], inputs[1], inputs[2]};
}

void LossScale::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> Commit::infer(Specs inputs) const {
  expect_inputs(inputs, 3, "value, previous, factor");
  expect_like(inputs[1], "previous", inputs[0], "the value's shape");
  expect_float(inputs[2], "factor");
  expect_shape(inputs[2], "factor", {}, "a scalar");
  return {inputs[0]};
}

void Commit::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> SgdUpdate::infer(Specs inputs) const {
  expect_within(momentum, "momentum", 0.0, 1.0);
  const bool velocity = momentum > 0.0;
  if (nesterov && !velocity) {
    fail<ArgumentError>("nesterov needs a momentum above 0, momentum is ", momentum);
  }
  const std::size_t count = 3 + (velocity ? 1 : 0) + (clipped ? 1 : 0);
  const char* const names = velocity  ? clipped
                                            ? "parameter, gradient, learning_rate, velocity, factor"
                                            : "parameter, gradient, learning_rate, velocity"
                            : clipped ? "parameter, gradient, learning_rate, factor"
                                      : "parameter, gradient, learning_rate";
  expect_inputs(inputs, count, names);
  expect_update(inputs, clipped, weight_decay, rate_scale);
  if (!velocity) return {inputs[0]};
  expect_like(inputs[3], "velocity", inputs[0], "the parameter's shape");
  return {inputs[0], inputs[0]};
}

void SgdUpdate::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> AdamUpdate::infer(Specs inputs) const {
  expect_decay(beta1, "beta1");
  expect_decay(beta2, "beta2");
  expect_positive(eps, "eps");
  expect_inputs(inputs, clipped ? 7 : 6,
                clipped ? "parameter, gradient, learning_rate, step, mean, variance, factor"
                        : "parameter, gradient, learning_rate, step, mean, variance");
  expect_update(inputs, clipped, weight_decay, rate_scale);
  expect_one(inputs[3], "step", DType::kInt64);
  expect_like(inputs[4], "mean", inputs[0], "the parameter's shape");
  expect_like(inputs[5], "variance", inputs[0], "the parameter's shape");
  return {inputs[0], inputs[0], inputs[0]};
}

void AdamUpdate::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> MuonUpdate::infer(Specs inputs) const {
  expect_decay(momentum, "momentum");
  if (nesterov && momentum == 0.0)
    fail<ArgumentError>("nesterov needs a momentum above 0, momentum is 0");
  if (iterations < 1 || iterations > 100)
    fail<ArgumentError>("iterations is ", iterations, ", expected a number from 1 to 100");
  expect_inputs(inputs, clipped ? 5 : 4,
                clipped ? "parameter, gradient, learning_rate, velocity, factor"
                        : "parameter, gradient, learning_rate, velocity");
  expect_update(inputs, clipped, weight_decay, rate_scale);
  if (inputs[0].shape.size() < 2)
    fail<ShapeError>("parameter is ", inputs[0].shape, ", expected two axes at least");
  expect_like(inputs[3], "velocity", inputs[0], "the parameter's shape");
  return {inputs[0], inputs[0]};
}

void MuonUpdate::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> EmaUpdate::infer(Specs inputs) const {
  expect_within(decay, "decay", 0.0, 1.0);
  expect_inputs(inputs, 3, "average, value, step");
  expect_float(inputs[0], "average");
  expect_like(inputs[1], "value", inputs[0], "the average's shape");
  expect_one(inputs[2], "step", DType::kInt64);
  return {inputs[0]};
}

void EmaUpdate::gradient(GradientContext&) const { no_gradient(); }

namespace {

// The update takes the gradient that the layer's tensors give; it stands where they stand.
template <class Update>
std::vector<TensorSpec> infer_dense_update(const Update& update, bool bias, Specs inputs) {
  if (update.clipped) fail<ArgumentError>("clipped gradients must all be known before an update");
  expect_inputs(inputs, 4, 8, "parameter, input, grad_output, and what the update takes");
  const Specs layer = inputs.subspan(1, 2);
  const std::vector<TensorSpec> gradients = DenseGradWeight{bias}.infer(layer);
  std::vector<TensorSpec> rest = {inputs[0], gradients[0]};
  rest.insert(rest.end(), inputs.begin() + 3, inputs.end());
  std::vector<TensorSpec> results = update.infer(rest);
  if (bias) results.push_back(gradients[1]);
  return results;
}

}  // namespace

std::vector<TensorSpec> DenseSgdUpdate::infer(Specs inputs) const {
  return infer_dense_update(update, bias, inputs);
}

void DenseSgdUpdate::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> DenseAdamUpdate::infer(Specs inputs) const {
  return infer_dense_update(update, bias, inputs);
}

void DenseAdamUpdate::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
