#include <limits>

#include "ops/broadcast.h"
#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What the gradient rules are written with; grad is that of the output.
struct Rule {
  GradientContext& context;
  Symbol a = context.input(0), b = context.input(1), grad = context.grad_output();

  Symbol times(Symbol x, Symbol y) const { return context.emit(Multiply{}, {x, y}); }
  Symbol binary(BinaryKind kind, Symbol x, Symbol y) const {
    return context.emit(Binary{kind}, {x, y});
  }
  Symbol unary(UnaryKind kind, double first, double second, Symbol x) const {
    return context.emit(Unary{kind, first, second}, {x});
  }
  Symbol affine(double scale, double offset, Symbol x) const {
    return context.emit(Affine{scale, offset}, {x});
  }
  // Summed over the axes along which the operand was repeated.
  Symbol summed(int i, Symbol value) const {
    return sum_to(context, value, context.output_spec(), context.input_spec(i).shape);
  }

  // Where the base is 0, so is the power, and its derivative by the exponent; the logarithm of 1 in
  // its place keeps infinity out.
  Symbol log_of_base() const {
    const DType type = context.input_spec(0).dtype;
    Symbol zero = context.emit(Fill{{}, parameter_type(type), 0.0}, {});
    if (is_low_precision(type)) zero = context.emit(Cast{type}, {zero});
    const Symbol base = context.emit(Add{}, {a, binary(BinaryKind::kEqual, a, zero)});
    return unary(UnaryKind::kLog, 1.0, 0.0, base);
  }

  Symbol by_a(BinaryKind kind) const {
    switch (kind) {
      case BinaryKind::kDivide:
        return binary(kind, grad, b);
      case BinaryKind::kMaximum:
        return times(grad, binary(BinaryKind::kStep, a, b));
      case BinaryKind::kMinimum:
        return times(grad, binary(BinaryKind::kStep, b, a));
      case BinaryKind::kPower:
        return times(grad, times(b, binary(kind, a, affine(1.0, -1.0, b))));
      default:
        return times(grad, binary(BinaryKind::kPreluSlope, a, b));
    }
  }

  Symbol by_b(BinaryKind kind) const {
    switch (kind) {
      case BinaryKind::kDivide:
        return affine(-1.0, 0.0, summed(1, times(grad, binary(kind, context.output(), b))));
      case BinaryKind::kMaximum:
        return summed(1, times(grad, binary(BinaryKind::kStep, b, a)));
      case BinaryKind::kMinimum:
        return summed(1, times(grad, binary(BinaryKind::kStep, a, b)));
      case BinaryKind::kPower:
        return summed(1, times(grad, times(context.output(), log_of_base())));
      default:
        return summed(1, times(grad, unary(UnaryKind::kClip, -kInfinity, 0.0, a)));
    }
  }
};

}  // namespace

std::vector<TensorSpec> Binary::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "a, b");
  expect_image_types(inputs, {"a", "b"});
  if (kind > BinaryKind::kStep) {
    fail<ArgumentError>("binary kind ", static_cast<int>(kind), " is unknown");
  }
  return {{broadcast_shapes(inputs[0].shape, inputs[1].shape), inputs[0].dtype}};
}

void Binary::gradient(GradientContext& context) const {
  // Steps: the gradient is 0 wherever there is one.
  if (kind == BinaryKind::kEqual || kind == BinaryKind::kStep) return;
  // Serves the gradients of the others.
  if (kind == BinaryKind::kPreluSlope) no_gradient();
  const Rule rule{context};
  if (context.needs_grad(0)) context.set_grad_input(0, rule.summed(0, rule.by_a(kind)));
  if (context.needs_grad(1)) context.set_grad_input(1, rule.by_b(kind));
}

}  // namespace pycnn::ops
