#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {

std::vector<TensorSpec> Activation::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_image_type(inputs[0], "input");
  expect_activation(kind, slope);
  return {inputs[0]};
}

void Activation::gradient(GradientContext& context) const {
  Symbol grad = context.grad_output();
  const bool rectifies = kind == ActivationKind::kRelu || kind == ActivationKind::kRelu6;
  const ReluRule rule = rectifies ? context.relu_rule() : ReluRule::kExact;
  if (rule != ReluRule::kExact) grad = context.emit(Activation{ActivationKind::kRelu}, {grad});
  if (kind != ActivationKind::kIdentity && rule != ReluRule::kDeconvnet)
    grad = context.emit(ActivationGrad{kind, slope}, {context.output(), grad});
  context.set_grad_input(0, grad);
}

std::vector<TensorSpec> ActivationGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "output, grad_output");
  expect_image_types(inputs, {"output", "grad_output"});
  expect_activation(kind, slope);
  expect_shape(inputs[1], "grad_output", inputs[0].shape, "the output's shape");
  return {inputs[0]};
}

void ActivationGrad::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
