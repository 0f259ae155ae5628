#include <cmath>

#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

void expect_number(double value, const char* name) {
  if (std::isnan(value)) fail<ArgumentError>(name, " is nan, expected a number");
}

void expect_constants(UnaryKind kind, double a, double b) {
  if (kind > UnaryKind::kThreshold) {
    fail<ArgumentError>("unary kind ", static_cast<int>(kind), " is unknown");
  }
  expect_number(a, "a");
  expect_number(b, "b");
  switch (kind) {
    case UnaryKind::kCelu:
    case UnaryKind::kSoftplus:
      expect_positive(a, "a");
      break;
    case UnaryKind::kElu:
    case UnaryKind::kPower:
      expect_finite(a, "a");
      break;
    case UnaryKind::kHardSigmoid:
      expect_finite(a, "a");
      expect_finite(b, "b");
      break;
    default:
      break;
  }
}

}  // namespace

std::vector<TensorSpec> Unary::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_image_type(inputs[0], "input");
  expect_constants(kind, a, b);
  return {inputs[0]};
}

void Unary::gradient(GradientContext& context) const {
  context.set_grad_input(
      0, context.emit(UnaryGrad{kind, a, b}, {context.input(0), context.grad_output()}));
}

std::vector<TensorSpec> UnaryGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "input, grad_output");
  expect_image_types(inputs, {"input", "grad_output"});
  expect_constants(kind, a, b);
  expect_shape(inputs[1], "grad_output", inputs[0].shape, "the input's shape");
  return {inputs[0]};
}

void UnaryGrad::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
