#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {

std::vector<TensorSpec> LocalResponseNorm::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_least_rank(inputs[0], "input", 2, "(..., C)");
  expect_image_type(inputs[0], "input");
  if (size < 1 || size > kMaxAttribute) {
    fail<ArgumentError>("size is ", size, ", expected a value from 1 to ", kMaxAttribute);
  }
  // With k above 0 and alpha not negative the base of the power is never 0.
  expect_positive(k, "k");
  for (const auto& [value, name] : {std::pair{alpha, "alpha"}, std::pair{beta, "beta"}}) {
    expect_finite(value, name);
    if (value < 0.0) fail<ArgumentError>(name, " is ", value, ", expected at least 0");
  }
  return {inputs[0]};
}

void LocalResponseNorm::gradient(GradientContext& context) const {
  context.set_grad_input(
      0, context.emit(LocalResponseNormGrad{*this}, {context.input(0), context.grad_output()}));
}

std::vector<TensorSpec> LocalResponseNormGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "input, grad_output");
  (void)norm.infer(inputs.first(1));
  expect_image_types(inputs, {"input", "grad_output"});
  expect_shape(inputs[1], "grad_output", inputs[0].shape, "the input's shape");
  return {inputs[0]};
}

void LocalResponseNormGrad::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
