#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {

std::vector<TensorSpec> ArgMax::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  const TensorSpec& input = inputs[0];
  expect_float(input, "input");
  if (axis < -rank(input) || axis >= rank(input)) {
    fail<ShapeError>("axis ", axis, " is not one of input ", input.shape);
  }
  const auto at = static_cast<std::size_t>(axis < 0 ? axis + rank(input) : axis);
  if (input.shape[at] == 0) fail<ShapeError>("axis ", axis, " of input ", input.shape, " is empty");
  TensorSpec output{input.shape, DType::kInt64};
  if (keep_dims)
    output.shape[at] = 1;
  else
    output.shape.erase(output.shape.begin() + static_cast<std::ptrdiff_t>(at));
  return {output};
}

void ArgMax::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
