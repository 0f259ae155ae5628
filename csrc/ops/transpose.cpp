#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {

std::vector<TensorSpec> Transpose::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  const TensorSpec& input = inputs[0];
  std::vector<bool> seen(input.shape.size(), false);
  bool valid = permutation.size() == input.shape.size();
  for (std::size_t i = 0; valid && i < permutation.size(); ++i) {
    const std::int64_t axis = permutation[i];
    valid = axis >= 0 && axis < rank(input) && !seen[static_cast<std::size_t>(axis)];
    if (valid) seen[static_cast<std::size_t>(axis)] = true;
  }
  if (!valid) {
    fail<ArgumentError>("permutation is ", permutation, ", expected each axis of input ",
                        input.shape, " once, from 0 to ", rank(input) - 1);
  }
  TensorSpec output{{}, input.dtype};
  for (const std::int64_t axis : permutation) {
    output.shape.push_back(dim(input, static_cast<int>(axis)));
  }
  return {output};
}

void Transpose::gradient(GradientContext& context) const {
  Transpose inverse{std::vector<std::int64_t>(permutation.size())};
  for (std::size_t i = 0; i < permutation.size(); ++i) {
    inverse.permutation[static_cast<std::size_t>(permutation[i])] = static_cast<std::int64_t>(i);
  }
  context.set_grad_input(0, context.emit(std::move(inverse), {context.grad_output()}));
}

}  // namespace pycnn::ops
