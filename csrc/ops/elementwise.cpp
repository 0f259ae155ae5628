#include <algorithm>

#include "ops/broadcast.h"
#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

std::vector<TensorSpec> infer_binary(Specs inputs) {
  expect_inputs(inputs, 2, "a, b");
  expect_image_types(inputs, {"a", "b"});
  return {{broadcast_shapes(inputs[0].shape, inputs[1].shape), inputs[0].dtype}};
}

// Gradient of operand i before the sum over the axes along which it was repeated.
void set_operand(GradientContext& context, int i, Symbol grad) {
  context.set_grad_input(i,
                         sum_to(context, grad, context.output_spec(), context.input_spec(i).shape));
}

}  // namespace

Shape broadcast_shapes(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  const std::size_t added = longer.size() - shorter.size();
  Shape result = longer;
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    std::int64_t& size = result[added + i];
    if (size == shorter[i] || shorter[i] == 1) continue;
    if (size != 1) {
      const std::size_t from_end = shorter.size() - i;
      fail<ShapeError>("shapes ", a, " and ", b, " do not broadcast: axis -", from_end, " is ",
                       a[a.size() - from_end], " and ", b[b.size() - from_end]);
    }
    size = shorter[i];
  }
  return result;
}

// ---- Add, Subtract, Multiply

std::vector<TensorSpec> Add::infer(Specs inputs) const { return infer_binary(inputs); }

void Add::gradient(GradientContext& context) const {
  for (int i = 0; i < 2; ++i) {
    if (context.needs_grad(i)) set_operand(context, i, context.grad_output());
  }
}

std::vector<TensorSpec> Subtract::infer(Specs inputs) const { return infer_binary(inputs); }

void Subtract::gradient(GradientContext& context) const {
  if (context.needs_grad(0)) set_operand(context, 0, context.grad_output());
  if (!context.needs_grad(1)) return;
  // Summed before the sign changes: the smaller tensor is the cheaper one to negate.
  const Symbol sum =
      sum_to(context, context.grad_output(), context.output_spec(), context.input_spec(1).shape);
  context.set_grad_input(1, context.emit(Affine{-1.0, 0.0}, {sum}));
}

std::vector<TensorSpec> Multiply::infer(Specs inputs) const { return infer_binary(inputs); }

void Multiply::gradient(GradientContext& context) const {
  for (int i = 0; i < 2; ++i) {
    if (!context.needs_grad(i)) continue;
    set_operand(context, i,
                context.emit(Multiply{}, {context.grad_output(), context.input(1 - i)}));
  }
}

// ---- Affine, Cast, Fill

std::vector<TensorSpec> Affine::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  expect_image_type(inputs[0], "input");
  expect_finite(scale, "scale");
  expect_finite(offset, "offset");
  return {inputs[0]};
}

void Affine::gradient(GradientContext& context) const {
  context.set_grad_input(0, scale == 1.0
                                ? context.grad_output()
                                : context.emit(Affine{scale, 0.0}, {context.grad_output()}));
}

std::vector<TensorSpec> Cast::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  for (const auto& [type, name] :
       {std::pair{inputs[0].dtype, "input"}, std::pair{dtype, "dtype"}}) {
    if (is_floating(type)) continue;
    fail<DTypeError>(name, " is ", type, ", expected f32, f64, bf16 or f16",
                     type == DType::kUInt8
                         ? "\n  hint: normalize_image turns u8 images into floating point"
                         : "");
  }
  return {{inputs[0].shape, dtype}};
}

void Cast::gradient(GradientContext& context) const {
  context.set_grad_input(0,
                         context.emit(Cast{context.input_spec(0).dtype}, {context.grad_output()}));
}

std::vector<TensorSpec> Fill::infer(Specs inputs) const {
  expect_inputs(inputs, 0, "none");
  const TensorSpec output{shape, dtype};
  expect_valid(output, "shape");
  expect_holds(dtype, value, "value");
  return {output};
}

void Fill::gradient(GradientContext&) const {}  // a constant

}  // namespace pycnn::ops
