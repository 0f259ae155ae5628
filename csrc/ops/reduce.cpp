#include "ops/broadcast.h"
#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

std::int64_t reduced_count(const Reduce& op, const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t axis : op.axes) count *= shape[static_cast<std::size_t>(axis)];
  return count;
}

}  // namespace

// ---- Reduce

std::vector<TensorSpec> Reduce::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  const TensorSpec& input = inputs[0];
  expect_float(input, "input");
  if (kind > Reduction::kMax) {
    fail<ArgumentError>("reduction kind ", static_cast<int>(kind), " is unknown");
  }
  std::int64_t last = -1;
  for (const std::int64_t axis : axes) {
    if (axis < 0 || axis >= rank(input)) {
      fail<ShapeError>("axis ", axis, " is not one of input ", input.shape);
    }
    if (axis <= last) {
      fail<ArgumentError>("axes are ", axes, ", expected distinct ones in ascending order");
    }
    last = axis;
  }
  if (kind != Reduction::kSum && reduced_count(*this, input.shape) == 0) {
    fail<ShapeError>("the ", reduction_name(kind), " of input ", input.shape, " over axes ", axes,
                     " has no elements");
  }
  TensorSpec output{{}, input.dtype};
  auto next = axes.begin();
  for (int axis = 0; axis < rank(input); ++axis) {
    const bool reduced = next != axes.end() && *next == axis;
    if (reduced) ++next;
    if (!reduced) output.shape.push_back(dim(input, axis));
    if (reduced && keep_dims) output.shape.push_back(1);
  }
  return {output};
}

void Reduce::gradient(GradientContext& context) const {
  const Shape& shape = context.input_spec(0).shape;
  Symbol grad = context.grad_output();
  // The factor goes in while the tensor is still small.
  if (kind == Reduction::kMean && !axes.empty()) {
    const double count = static_cast<double>(reduced_count(*this, shape));
    grad = context.emit(Affine{1.0 / count, 0.0}, {grad});
  }
  if (axes.empty()) {
    context.set_grad_input(0, grad);
    return;
  }
  Shape kept = shape;
  for (const std::int64_t axis : axes) kept[static_cast<std::size_t>(axis)] = 1;
  const Shape& reduced = context.output_spec().shape;
  const auto in_kept = [&](Symbol value) {
    return reduced == kept ? value : context.emit(reshape_to(reduced, kept), {value});
  };
  grad = in_kept(grad);
  if (kind == Reduction::kMax) {
    const Symbol largest =
        context.emit(Binary{BinaryKind::kEqual}, {context.input(0), in_kept(context.output())});
    const Symbol count = context.emit(Reduce{Reduction::kSum, axes, true}, {largest});
    const Symbol share = context.emit(Binary{BinaryKind::kDivide}, {grad, count});
    context.set_grad_input(0, context.emit(Multiply{}, {largest, share}));
    return;
  }
  context.set_grad_input(0, context.emit(Broadcast{shape}, {grad}));
}

// ---- Broadcast

std::vector<TensorSpec> Broadcast::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  const TensorSpec output{shape, inputs[0].dtype};
  expect_valid(output, "shape");
  if (inputs[0].shape.size() > shape.size() || broadcast_shapes(inputs[0].shape, shape) != shape) {
    fail<ShapeError>("input ", inputs[0].shape, " does not broadcast to ", shape);
  }
  return {output};
}

void Broadcast::gradient(GradientContext& context) const {
  context.set_grad_input(0, sum_to(context, context.grad_output(), context.output_spec(),
                                   context.input_spec(0).shape));
}

}  // namespace pycnn::ops
