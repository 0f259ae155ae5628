#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

void expect_probability(double p) {
  if (!(p >= 0.0 && p < 1.0)) {
    fail<ArgumentError>("p is ", p, ", expected a probability from 0 up to but not 1");
  }
}

}  // namespace

std::vector<TensorSpec> Dropout::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_image_type(inputs[0], "input");
  expect_probability(p);
  return {inputs[0]};
}

void Dropout::gradient(GradientContext&) const {
  no_gradient(" before the mode is known\n  hint: differentiate specialize(graph, mode) instead");
}

std::vector<TensorSpec> DropoutTrain::infer(Specs inputs) const {
  expect_inputs(inputs, 3, "input, seed, step");
  expect_image_type(inputs[0], "input");
  expect_probability(p);
  const char* const names[] = {"input", "seed", "step"};
  for (std::size_t i = 1; i < 3; ++i) {
    expect_dtype(inputs[i], names[i], DType::kInt64);
    expect_shape(inputs[i], names[i], {1}, "one number");
  }
  return {inputs[0]};
}

// The mask is a function of seed, step and stream, so the backward pass draws the same one.
void DropoutTrain::gradient(GradientContext& context) const {
  context.set_grad_input(
      0, context.emit(*this, {context.grad_output(), context.input(1), context.input(2)}));
}

}  // namespace pycnn::ops
