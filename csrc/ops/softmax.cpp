#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

std::vector<TensorSpec> infer_forward(Specs inputs) {
  expect_inputs(inputs, 1, "input");
  expect_least_rank(inputs[0], "input", 1, "(..., C)");
  expect_float(inputs[0], "input");
  return {inputs[0]};
}

std::vector<TensorSpec> infer_backward(Specs inputs) {
  expect_inputs(inputs, 2, "output, grad_output");
  expect_least_rank(inputs[0], "output", 1, "(..., C)");
  expect_floats(inputs, {"output", "grad_output"});
  expect_shape(inputs[1], "grad_output", inputs[0].shape, "the output's shape");
  return {inputs[0]};
}

}  // namespace

std::vector<TensorSpec> Softmax::infer(Specs inputs) const { return infer_forward(inputs); }

void Softmax::gradient(GradientContext& context) const {
  context.set_grad_input(0, context.emit(SoftmaxGrad{}, {context.output(), context.grad_output()}));
}

std::vector<TensorSpec> SoftmaxGrad::infer(Specs inputs) const { return infer_backward(inputs); }

void SoftmaxGrad::gradient(GradientContext&) const { no_gradient(); }

std::vector<TensorSpec> LogSoftmax::infer(Specs inputs) const { return infer_forward(inputs); }

void LogSoftmax::gradient(GradientContext& context) const {
  context.set_grad_input(0,
                         context.emit(LogSoftmaxGrad{}, {context.output(), context.grad_output()}));
}

std::vector<TensorSpec> LogSoftmaxGrad::infer(Specs inputs) const { return infer_backward(inputs); }

void LogSoftmaxGrad::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
