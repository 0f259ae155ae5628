#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

void expect_indices(const std::vector<std::int64_t>& indices, std::int64_t rows) {
  for (std::size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] < -1 || indices[i] >= rows) {
      fail<ShapeError>("index ", indices[i], " at position ", i, " is out of range: there are ",
                       rows, " rows (-1 gives zeros)");
    }
  }
}

}  // namespace

std::vector<TensorSpec> Take::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_least_rank(inputs[0], "input", 1, "(rows, ...)");
  expect_indices(indices, dim(inputs[0], 0));
  TensorSpec output = inputs[0];
  output.shape[0] = static_cast<std::int64_t>(indices.size());
  return {output};
}

void Take::gradient(GradientContext& context) const {
  const TakeGrad op{indices, dim(context.input_spec(0), 0)};
  context.set_grad_input(0, context.emit(op, {context.grad_output()}));
}

std::vector<TensorSpec> TakeGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "grad_output");
  expect_least_rank(inputs[0], "grad_output", 1, "(rows, ...)");
  expect_float(inputs[0], "grad_output");
  expect_least(rows, "rows", 0);
  expect_indices(indices, rows);
  if (dim(inputs[0], 0) != static_cast<std::int64_t>(indices.size())) {
    fail<ShapeError>("grad_output ", inputs[0].shape, " has ", dim(inputs[0], 0), " rows for ",
                     indices.size(), " indices");
  }
  TensorSpec output = inputs[0];
  output.shape[0] = rows;
  return {output};
}

void TakeGrad::gradient(GradientContext& context) const {
  context.set_grad_input(0, context.emit(Take{indices}, {context.grad_output()}));
}

}  // namespace pycnn::ops
