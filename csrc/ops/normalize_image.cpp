#include "ops/checks.h"
#include "ops/gradient_rules.h"

namespace pycnn::ops {
namespace {

void expect_channel_values(const std::vector<double>& values, const char* name,
                           std::int64_t channels) {
  const auto count = static_cast<std::int64_t>(values.size());
  if (count != 0 && count != 1 && count != channels) {
    fail<ArgumentError>(name, " has ", count, " values, the image has ", channels,
                        channels == 1 ? " channel" : " channels", "; give none, one or ", channels);
  }
  for (const double value : values) expect_finite(value, name);
}

}  // namespace

std::vector<TensorSpec> NormalizeImage::infer(Specs inputs) const {
  expect_inputs(inputs, 1, "input");
  const TensorSpec& input = inputs[0];
  expect_least_rank(input, "input", 1, "(..., C)");
  if (input.dtype != DType::kUInt8 && input.dtype != DType::kFloat32 &&
      input.dtype != DType::kFloat64) {
    fail<DTypeError>("input is ", input.dtype, ", expected u8, f32 or f64");
  }
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    fail<DTypeError>("dtype of the result is ", dtype, ", expected f32 or f64");
  }
  expect_finite(scale, "scale");
  expect_channel_values(mean, "mean", dim(input, -1));
  expect_channel_values(std, "std", dim(input, -1));
  for (const double value : std) expect_positive(value, "std");
  return {{input.shape, dtype}};
}

// grad_input = grad_output * scale / std: the same op without a mean, back to the input's type.
void NormalizeImage::gradient(GradientContext& context) const {
  const NormalizeImage op{scale, {}, std, context.input_spec(0).dtype};
  context.set_grad_input(0, context.emit(op, {context.grad_output()}));
}

}  // namespace pycnn::ops
