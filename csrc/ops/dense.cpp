#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

constexpr const char* kWeightAxes = "(OUT, IN)";

Shape with_last(const TensorSpec& spec, std::int64_t size) {
  Shape shape = spec.shape;
  shape.back() = size;
  return shape;
}

void expect_not_empty(const TensorSpec& spec, const char* name) {
  if (dim(spec, -1) < 1) fail<ShapeError>(name, " ", spec.shape, " has no feature");
}

}  // namespace

// ---- Dense

std::vector<TensorSpec> Dense::infer(Specs inputs) const {
  const std::size_t extra = epilogue.residual ? 1 : 0;
  expect_inputs(
      inputs, 2 + extra, 3 + extra,
      epilogue.residual ? "input, weight, bias or none, residual" : "input, weight, bias or none");
  const bool bias = inputs.size() == 3 + extra;
  const TensorSpec& input = inputs[0];
  const TensorSpec& weight = inputs[1];
  expect_least_rank(input, "input", 2, "(..., IN)");
  expect_image_type(input, "input");
  expect_parameter_type(weight, "weight", input);
  if (bias) expect_parameter_type(inputs[2], "bias", input);
  expect_rank(weight, "weight", 2, kWeightAxes);
  expect_not_empty(input, "input");
  if (dim(weight, 0) < 1) fail<ShapeError>("weight ", weight.shape, " has an empty axis");
  if (dim(input, -1) != dim(weight, 1)) {
    std::int64_t features = 1;
    for (int axis = 1; axis < rank(input); ++axis) {
      features = checked_multiply(features, dim(input, axis));
    }
    const char* hint =
        features == dim(weight, 1) ? "\n  hint: flatten the input first, to (N, IN)"
        : dim(weight, 0) == dim(input, -1)
            ? "\n  hint: the weight is (OUT, IN); axis 0 looks like the inputs, try weight.T"
            : "";
    fail<ShapeError>("input has ", dim(input, -1), " features, weight expects ", dim(weight, 1),
                     hint);
  }
  if (bias) expect_shape(inputs[2], "bias", {dim(weight, 0)}, "one value per output feature");
  const TensorSpec output{with_last(input, dim(weight, 0)), input.dtype};
  expect_epilogue(epilogue, inputs, output);
  if (epilogue.moments) fail<ArgumentError>("only a convolution gives moments");
  return {output};
}

void Dense::gradient(GradientContext& context) const {
  if (epilogue != Epilogue{}) {
    no_gradient(" once an epilogue is fused; differentiate before fusing");
  }
  const Symbol grad = context.grad_output();
  const bool bias = context.input_count() > 2 && context.needs_grad(2);
  if (context.needs_grad(0)) {
    context.set_grad_input(0, context.emit(DenseGradInput{}, {grad, context.input(1)}));
  }
  if (context.needs_grad(1)) {
    const Symbol grad_weight = context.emit(DenseGradWeight{bias}, {context.input(0), grad});
    context.set_grad_input(1, grad_weight);
    if (bias) context.set_grad_input(2, GradientContext::result(grad_weight, 1));
  } else if (bias) {
    context.set_grad_input(2, sum_to_last_axis(context, grad, context.output_spec()));
  }
}

// ---- DenseGradInput

std::vector<TensorSpec> DenseGradInput::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "grad_output, weight");
  expect_least_rank(inputs[0], "grad_output", 2, "(..., OUT)");
  expect_image_type(inputs[0], "grad_output");
  expect_parameter_type(inputs[1], "weight", inputs[0], "grad_output");
  expect_rank(inputs[1], "weight", 2, kWeightAxes);
  expect_not_empty(inputs[0], "grad_output");
  expect_not_empty(inputs[1], "weight");
  if (dim(inputs[0], -1) != dim(inputs[1], 0)) {
    fail<ShapeError>("grad_output has ", dim(inputs[0], -1), " features, weight has ",
                     dim(inputs[1], 0), " rows");
  }
  return {{with_last(inputs[0], dim(inputs[1], 1)), inputs[0].dtype}};
}

// Linear in each input, as the convolution's.
void DenseGradInput::gradient(GradientContext& context) const {
  const Symbol grad = context.grad_output();
  if (context.needs_grad(0)) {
    context.set_grad_input(0, context.emit(Dense{}, {grad, context.input(1)}));
  }
  if (context.needs_grad(1)) {
    context.set_grad_input(1, context.emit(DenseGradWeight{}, {grad, context.input(0)}));
  }
}

// ---- DenseGradWeight

std::vector<TensorSpec> DenseGradWeight::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "input, grad_output");
  expect_least_rank(inputs[0], "input", 2, "(..., IN)");
  expect_least_rank(inputs[1], "grad_output", 2, "(..., OUT)");
  expect_image_types(inputs, {"input", "grad_output"});
  expect_not_empty(inputs[0], "input");
  expect_not_empty(inputs[1], "grad_output");
  expect_shape(inputs[1], "grad_output", with_last(inputs[0], dim(inputs[1], -1)),
               "the input's axes but the last");
  const DType dtype = parameter_type(inputs[0].dtype);
  std::vector<TensorSpec> outputs = {{{dim(inputs[1], -1), dim(inputs[0], -1)}, dtype}};
  if (bias) outputs.push_back({{dim(inputs[1], -1)}, dtype});
  return outputs;
}

void DenseGradWeight::gradient(GradientContext& context) const {
  const Symbol grad = context.grad_output();
  if (context.needs_grad(0)) {
    context.set_grad_input(0, context.emit(DenseGradInput{}, {context.input(1), grad}));
  }
  if (context.needs_grad(1)) {
    std::vector<Symbol> inputs = {context.input(0), grad};
    if (bias && context.has_grad_output(1)) inputs.push_back(context.grad_output(1));
    context.set_grad_input(1, context.emit(Dense{}, std::move(inputs)));
  }
}

}  // namespace pycnn::ops
