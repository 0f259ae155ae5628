#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {

// Axes kept by a 0 are left out of the count on both sides, so that -1 is defined for an empty
// batch too: (0, 5, 5, 16) becomes (0, 400) by (0, -1).
std::vector<TensorSpec> Reshape::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  const TensorSpec& input = inputs[0];
  TensorSpec output{shape, input.dtype};
  std::int64_t available = 1, wanted = 1;
  std::size_t unknown = shape.size();
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] > 0) {
      wanted = checked_multiply(wanted, shape[axis]);
    } else if (shape[axis] == 0) {
      if (axis >= input.shape.size()) {
        fail<ShapeError>("shape ", shape, " keeps axis ", axis, ", which input ", input.shape,
                         " does not have");
      }
      output.shape[axis] = input.shape[axis];
    } else if (shape[axis] != -1 || unknown != shape.size()) {
      fail<ArgumentError>("shape is ", shape, ", expected sizes, 0 for the input's axis and -1 ",
                          "at most once");
    } else {
      unknown = axis;
    }
  }
  for (std::size_t axis = 0; axis < input.shape.size(); ++axis) {
    const bool kept = axis < shape.size() && shape[axis] == 0;
    if (!kept) available = checked_multiply(available, input.shape[axis]);
  }
  const bool divides = available % wanted == 0;
  if (unknown < shape.size()) output.shape[unknown] = available / wanted;
  if (unknown < shape.size() ? !divides : available != wanted) {
    fail<ShapeError>("input ", input.shape, " has ", element_count(input.shape),
                     " elements, they do not fill ", shape);
  }
  return {output};
}

void Reshape::gradient(GradientContext& context) const {
  const Op back = reshape_to(context.output_spec().shape, context.input_spec(0).shape);
  context.set_grad_input(0, context.emit(back, {context.grad_output()}));
}

}  // namespace pycnn::ops
