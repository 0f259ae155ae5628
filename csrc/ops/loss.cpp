#include "ops/checks.h"
#include "ops/gradient_rules.h"
#include "ops/labels.h"

namespace pycnn::ops {
namespace {

void expect_cross_entropy(Specs inputs, double label_smoothing) {
  const TensorSpec& logits = inputs[0];
  const TensorSpec& labels = inputs[1];
  expect_rank(logits, "logits", 2, "(N, C)");
  expect_float(logits, "logits");
  expect_within(label_smoothing, "label_smoothing", 0.0, 1.0);
  if (dim(logits, 0) < 1 || dim(logits, 1) < 1) {
    fail<ShapeError>("logits ", logits.shape, " are empty; the mean needs at least one sample and ",
                     "one class");
  }
  if (is_label_type(labels.dtype)) {
    expect_labels(labels, dim(logits, 0), dim(logits, 1));
    return;
  }
  if (labels.dtype != logits.dtype) {
    fail<DTypeError>("labels are ", labels.dtype, ", expected i64 or i32, or soft targets of ",
                     logits.dtype);
  }
  expect_shape(labels, "targets", logits.shape, "a probability per class, as the logits");
}

void expect_scalar(const TensorSpec& spec, const char* name, DType dtype) {
  expect_shape(spec, name, {}, "a scalar");
  expect_dtype(spec, name, dtype);
}

void expect_pair_of_tensors(Specs inputs) {
  expect_floats(inputs, {"input", "target"});
  expect_shape(inputs[1], "target", inputs[0].shape, "the input's shape");
  if (element_count(inputs[0].shape) < 1) {
    fail<ShapeError>("input ", inputs[0].shape, " is empty; the mean needs at least one element");
  }
}

}  // namespace

bool is_label_type(DType dtype) { return dtype == DType::kInt64 || dtype == DType::kInt32; }

void expect_labels(const TensorSpec& labels, std::int64_t rows, std::int64_t classes) {
  if (!is_label_type(labels.dtype)) {
    fail<DTypeError>("labels are ", labels.dtype, ", expected i64 or i32");
  }
  if (labels.shape == Shape{rows}) return;
  fail<ShapeError>("labels are ", labels.shape, ", expected ", Shape{rows}, ": one per sample",
                   labels.shape == Shape{rows, classes}
                       ? "\n  hint: one-hot labels are soft targets, give them as floats"
                       : "");
}

// ---- Cross-entropy

std::vector<TensorSpec> SoftmaxCrossEntropy::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "logits, labels");
  expect_cross_entropy(inputs, label_smoothing);
  return {{{}, inputs[0].dtype}};
}

void SoftmaxCrossEntropy::gradient(GradientContext& context) const {
  const Symbol grad = context.grad_output();
  if (context.needs_grad(0)) {
    context.set_grad_input(0, context.emit(SoftmaxCrossEntropyGrad{label_smoothing},
                                           {context.input(0), context.input(1), grad}));
  }
  if (context.needs_grad(1)) {
    // The loss is linear in soft targets: d loss / d target = -(1 - s) / N * log softmax(logits).
    const double samples = static_cast<double>(dim(context.input_spec(0), 0));
    const Symbol log = context.emit(LogSoftmax{}, {context.input(0)});
    const Symbol scaled = context.emit(Affine{-(1.0 - label_smoothing) / samples, 0.0}, {log});
    context.set_grad_input(1, context.emit(Multiply{}, {scaled, grad}));
  }
}

std::vector<TensorSpec> SoftmaxCrossEntropyGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 3, "logits, labels, grad_loss");
  expect_cross_entropy(inputs, label_smoothing);
  expect_scalar(inputs[2], "grad_loss", inputs[0].dtype);
  return {inputs[0]};
}

void SoftmaxCrossEntropyGrad::gradient(GradientContext&) const { no_gradient(); }

// ---- Mean squared error

std::vector<TensorSpec> MeanSquaredError::infer(Specs inputs) const {
  expect_inputs(inputs, 2, "input, target");
  expect_pair_of_tensors(inputs);
  return {{{}, inputs[0].dtype}};
}

void MeanSquaredError::gradient(GradientContext& context) const {
  const Symbol grad = context.emit(MeanSquaredErrorGrad{},
                                   {context.input(0), context.input(1), context.grad_output()});
  context.set_grad_input(0, grad);
  if (context.needs_grad(1)) {
    context.set_grad_input(1, context.emit(Affine{-1.0, 0.0}, {grad}));
  }
}

std::vector<TensorSpec> MeanSquaredErrorGrad::infer(Specs inputs) const {
  expect_inputs(inputs, 3, "input, target, grad_loss");
  expect_pair_of_tensors(inputs.first(2));
  expect_scalar(inputs[2], "grad_loss", inputs[0].dtype);
  return {inputs[0]};
}

void MeanSquaredErrorGrad::gradient(GradientContext&) const { no_gradient(); }

}  // namespace pycnn::ops
