#include "ops/checks.h"
#include "ops/gradient_rules.h"
#include "ops/labels.h"

namespace pycnn::ops {

std::vector<TensorSpec> TopKCorrect::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "scores, labels");
  expect_rank(inputs[0], "scores", 2, "(N, C)");
  expect_float(inputs[0], "scores");
  expect_labels(inputs[1], dim(inputs[0], 0), dim(inputs[0], 1));
  if (k < 1 || k > dim(inputs[0], 1)) {
    fail<ArgumentError>("k is ", k, ", expected a value from 1 to the ", dim(inputs[0], 1),
                        " classes");
  }
  return {{{}, inputs[0].dtype}};
}

void TopKCorrect::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
