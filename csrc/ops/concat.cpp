#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

constexpr std::size_t kMaxInputs = 1 << 20;

int resolved(std::int64_t axis, const TensorSpec& spec) {
  return static_cast<int>(axis < 0 ? axis + rank(spec) : axis);
}

}  // namespace

std::vector<TensorSpec> Concat::infer(Specs inputs) const {
  expect_inputs(inputs, 1, kMaxInputs, "tensors to join");
  TensorSpec output = inputs[0];
  if (axis < -rank(output) || axis >= rank(output)) {
    fail<ShapeError>("axis ", axis, " is not one of input 0 ", output.shape);
  }
  const auto joined = static_cast<std::size_t>(resolved(axis, output));
  for (std::size_t i = 1; i < inputs.size(); ++i) {
    const TensorSpec& input = inputs[i];
    if (input.dtype != output.dtype) {
      fail<DTypeError>("input ", i, " is ", input.dtype, ", input 0 is ", output.dtype,
                       "; both must be the same");
    }
    Shape expected = output.shape;
    if (input.shape.size() == expected.size()) expected[joined] = input.shape[joined];
    if (input.shape != expected) {
      fail<ShapeError>("input ", i, " is ", input.shape, ", input 0 is ", inputs[0].shape,
                       "; all axes but ", axis, " must be equal");
    }
    output.shape[joined] = checked_add(output.shape[joined], input.shape[joined]);
  }
  return {output};
}

void Concat::gradient(GradientContext& context) const {
  const auto joined = static_cast<std::size_t>(resolved(axis, context.output_spec()));
  std::int64_t begin = 0;
  for (int i = 0; i < context.input_count(); ++i) {
    const Shape& shape = context.input_spec(i).shape;
    if (context.needs_grad(i)) {
      Slice part{Shape(shape.size(), 0), shape};
      part.begin[joined] = begin;
      context.set_grad_input(i, context.emit(std::move(part), {context.grad_output()}));
    }
    begin += shape[joined];
  }
}

}  // namespace pycnn::ops
