#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

void expect_entries(const std::vector<std::int64_t>& values, const char* name,
                    const TensorSpec& input) {
  if (values.size() == input.shape.size()) return;
  fail<ShapeError>(name, " has ", values.size(), " entries, input ", input.shape, " has ",
                   rank(input), rank(input) == 1 ? " axis" : " axes");
}

}  // namespace

// ---- Slice

std::vector<TensorSpec> Slice::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_entries(begin, "begin", inputs[0]);
  expect_entries(size, "size", inputs[0]);
  TensorSpec output = inputs[0];
  for (std::size_t axis = 0; axis < begin.size(); ++axis) {
    const std::int64_t extent = output.shape[axis];
    // Compared without a sum, which could overflow.
    const bool fits = begin[axis] >= 0 && begin[axis] <= extent && size[axis] >= -1 &&
                      size[axis] <= extent - begin[axis];
    if (!fits) {
      fail<ShapeError>("axis ", axis, ": begin ", begin[axis], " and size ", size[axis],
                       " do not fit into ", extent, " of input ", inputs[0].shape);
    }
    output.shape[axis] = size[axis] == -1 ? extent - begin[axis] : size[axis];
  }
  return {output};
}

void Slice::gradient(GradientContext& context) const {
  Pad op{begin, context.input_spec(0).shape, 0.0};
  for (std::size_t axis = 0; axis < begin.size(); ++axis) {
    op.after[axis] -= begin[axis] + context.output_spec().shape[axis];
  }
  context.set_grad_input(0, context.emit(std::move(op), {context.grad_output()}));
}

// ---- Pad

std::vector<TensorSpec> Pad::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_entries(before, "before", inputs[0]);
  expect_entries(after, "after", inputs[0]);
  expect_holds(inputs[0].dtype, value, "value");
  TensorSpec output = inputs[0];
  for (std::size_t axis = 0; axis < before.size(); ++axis) {
    if (before[axis] < 0 || after[axis] < 0) {
      fail<ArgumentError>("axis ", axis, ": padding ", before[axis], " before and ", after[axis],
                          " after must not be negative\n  hint: slice takes cells away");
    }
    output.shape[axis] = checked_add(output.shape[axis], checked_add(before[axis], after[axis]));
  }
  return {output};
}

void Pad::gradient(GradientContext& context) const {
  context.set_grad_input(
      0, context.emit(Slice{before, context.input_spec(0).shape}, {context.grad_output()}));
}

}  // namespace pycnn::ops
