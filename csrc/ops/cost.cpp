// Work of one execution. Counts of `other_flops` are those of the formula in ops.h, with a
// transcendental function counted as one; they are for comparing steps, not for peak rates.
#include <algorithm>
#include <limits>

#include "ops/checks.h"
#include "ops/window.h"

namespace pycnn {
namespace {

// Sizes of specs are bounded, products of several are not: the count stops at the largest number.
std::int64_t times(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<std::int64_t>::max()
                                                : product;
}

std::int64_t plus(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<std::int64_t>::max() : sum;
}

std::int64_t elements(const TensorSpec& spec) { return element_count(spec.shape); }

// Elements of a convolution's or dense layer's weight that meet in one output.
std::int64_t taps(const TensorSpec& weight) {
  std::int64_t count = 1;
  for (int axis = 1; axis < ops::rank(weight); ++axis) count = times(count, ops::dim(weight, axis));
  return count;
}

std::int64_t epilogue_flops(const Epilogue& epilogue, bool bias, std::int64_t outputs) {
  const int per_output = static_cast<int>(bias) + static_cast<int>(epilogue.residual) +
                         static_cast<int>(epilogue.activation != ActivationKind::kIdentity);
  return times(outputs, per_output);
}

// Fills `macs` and `other_flops`.
struct Work {
  Specs in, out;
  Cost& cost;

  void per_output(std::int64_t flops) const { cost.other_flops = times(elements(out[0]), flops); }
  void per_input(std::int64_t flops) const { cost.other_flops = times(elements(in[0]), flops); }

  // What is copied is read and written; the rest of the input is not looked at.
  void copied_only() const {
    cost.bytes = std::min(cost.bytes, times(2, static_cast<std::int64_t>(byte_size(out[0]))));
  }

  template <class Pool>
  void pool(const Pool& op) const {
    per_output(window(op));
    skip_between_windows(op, in[0], out[0], op.kernel_size);
  }

  // Windows overlap by at most a row and a column: cells are counted once. Where every cell is a
  // window, nothing is done.
  void adaptive(const TensorSpec& image) const {
    if (in[0].shape == out[0].shape)
      cost.bytes = 0;
    else
      cost.other_flops = elements(image);
  }

  void resize(const ops::Resize2d& op, const TensorSpec& resized) const {
    if (op.mode == ResizeMode::kBilinear) cost.other_flops = times(elements(resized), 7);
  }

  // A stride beyond the window leaves rows and columns out that nobody has to read.
  template <class Window>
  void skip_between_windows(const Window& op, const TensorSpec& image, const TensorSpec& outputs,
                            const Pair& kernel) const {
    const std::int64_t all = elements(image), cells = times(ops::dim(image, 1), ops::dim(image, 2));
    if (all == 0 || cost.bytes == std::numeric_limits<std::int64_t>::max()) return;
    std::int64_t touched = 1;
    for (const int axis : {0, 1}) {
      const auto i = static_cast<std::size_t>(axis);
      const std::int64_t size = ops::dim(image, axis + 1);
      touched *= op.stride[i] <= kernel[i]
                     ? size
                     : std::min(size, times(ops::dim(outputs, axis + 1), kernel[i]));
    }
    const std::int64_t left_out = all / cells * (cells - touched);
    cost.bytes -= left_out * (static_cast<std::int64_t>(byte_size(image)) / all);
  }

  template <class Layer>
  void layer(const Layer& op) const {
    const std::int64_t outputs = elements(out[0]);
    cost.macs = times(outputs, taps(in[1]));
    const bool bias = in.size() == (op.epilogue.residual ? 4 : 3);
    cost.other_flops = epilogue_flops(op.epilogue, bias, outputs);
    if (op.epilogue.moments) cost.other_flops = plus(cost.other_flops, times(outputs, 4));
  }
  void grad_weight(bool bias) const {
    cost.macs = times(elements(in[1]), taps(out[0]));
    if (bias) cost.other_flops = elements(in[1]);
  }
  void operator()(const ops::Conv2d& op) const {
    layer(op);
    skip_between_windows(op, in[0], out[0], {ops::dim(in[1], 1), ops::dim(in[1], 2)});
  }
  void operator()(const ops::Dense& op) const { layer(op); }
  void operator()(const ops::Conv2dGradInput& op) const {
    cost.macs = times(elements(in[0]), taps(in[1]));
    per_output((op.finish.residual ? 1 : 0) + (op.finish.relu ? 1 : 0) + (op.sums.wanted ? 8 : 0));
    // Signs are read in place of what they are of.
    if (op.finish.signs)
      cost.bytes -= static_cast<std::int64_t>(byte_size(in[op.finish.residual ? 3 : 2]));
  }
  void operator()(const ops::DenseGradInput&) const {
    cost.macs = times(elements(in[0]), taps(in[1]));
  }
  void operator()(const ops::Conv2dGradWeight& op) const {
    grad_weight(op.bias);
    skip_between_windows(op, in[0], in[1], op.kernel_size);
  }
  void operator()(const ops::DenseGradWeight& op) const { grad_weight(op.bias); }

  void operator()(const ops::MaxPool2d& op) const { pool(op); }
  void operator()(const ops::AvgPool2d& op) const { pool(op); }
  void operator()(const ops::MaxPool2dGrad& op) const {
    cost.other_flops = times(elements(in[1]), plus(window(op.pool), 1));
  }
  void operator()(const ops::AvgPool2dGrad& op) const { per_input(window(op.pool)); }
  void operator()(const ops::AdaptiveAvgPool2d&) const { adaptive(in[0]); }
  void operator()(const ops::AdaptiveAvgPool2dGrad&) const { adaptive(out[0]); }
  void operator()(const ops::Resize2d& op) const { resize(op, out[0]); }
  void operator()(const ops::Resize2dGrad& op) const { resize(op.resize, in[0]); }
  void operator()(const ops::GlobalAvgPool2d&) const { per_input(1); }
  void operator()(const ops::GlobalMaxPool2d&) const { per_input(1); }
  void operator()(const ops::GlobalAvgPool2dGrad&) const { per_output(1); }
  void operator()(const ops::GlobalMaxPool2dGrad&) const { per_input(1); }

  void operator()(const ops::BatchNorm&) const { per_input(2); }
  // Mean, variance (difference, square, sum), then scale and shift.
  void operator()(const ops::BatchNormTrain&) const { per_input(6); }
  // Two sums of products, then three terms.
  void operator()(const ops::BatchNormTrainGrad&) const { per_input(in.size() > 5 ? 5 : 10); }
  void operator()(const ops::BatchNormStatistics&) const {
    if (in.size() == 5) return per_input(4);
    cost.other_flops = times(elements(out[0]), 10);
    cost.bytes -= static_cast<std::int64_t>(byte_size(in[0]));  // not read
  }
  void operator()(const ops::BatchNormApply& op) const {
    const std::int64_t norms = in.size() > 5 ? 2 : 1;
    cost.other_flops = plus(times(elements(out[0]), 2 * norms),
                            epilogue_flops(op.epilogue, false, elements(out[0])));
  }
  void operator()(const ops::BatchNormApplyGrad&) const { per_input(in.size() > 7 ? 7 : 14); }
  void operator()(const ops::BatchNormMaxPool& op) const {
    cost.other_flops = plus(times(elements(in[0]), 3), times(elements(out[0]), window(op.pool)));
  }
  void operator()(const ops::BatchNormMaxPoolGrad& op) const {
    cost.other_flops =
        plus(times(elements(in[0]), 14), times(elements(in[6]), plus(window(op.forward.pool), 1)));
  }
  void operator()(const ops::BatchNormInference&) const { per_input(2); }
  void operator()(const ops::BatchNormInferenceGrad&) const { per_input(5); }
  void operator()(const ops::FoldBatchNorm&) const { per_input(1); }
  // A sliding sum of squares, the power, the product.
  void operator()(const ops::LocalResponseNorm&) const { per_input(7); }
  void operator()(const ops::LocalResponseNormGrad&) const { per_input(14); }

  void operator()(const ops::Activation&) const { per_output(1); }
  void operator()(const ops::ActivationGrad&) const { per_output(2); }
  void operator()(const ops::Add&) const { per_output(1); }
  void operator()(const ops::Subtract&) const { per_output(1); }
  void operator()(const ops::Multiply&) const { per_output(1); }
  void operator()(const ops::Unary&) const { per_output(1); }
  void operator()(const ops::UnaryGrad&) const { per_output(2); }
  void operator()(const ops::Binary&) const { per_output(1); }
  void operator()(const ops::Affine&) const { per_output(2); }
  void operator()(const ops::Cast&) const { per_output(1); }
  void operator()(const ops::Fill&) const {}
  void operator()(const ops::Dropout&) const { per_output(1); }
  void operator()(const ops::DropoutTrain&) const { per_output(2); }
  void operator()(const ops::NormalizeImage&) const { per_output(2); }

  void operator()(const ops::Softmax&) const { per_output(5); }
  void operator()(const ops::SoftmaxGrad&) const { per_output(4); }
  void operator()(const ops::LogSoftmax&) const { per_output(5); }
  void operator()(const ops::LogSoftmaxGrad&) const { per_output(4); }
  void operator()(const ops::SoftmaxCrossEntropy&) const { per_input(5); }
  void operator()(const ops::SoftmaxCrossEntropyGrad&) const { per_input(7); }
  void operator()(const ops::MeanSquaredError&) const { per_input(3); }
  void operator()(const ops::MeanSquaredErrorGrad&) const { per_input(2); }
  void operator()(const ops::TopKCorrect&) const { per_input(1); }
  void operator()(const ops::Reduce&) const { per_input(1); }
  void operator()(const ops::ArgMax&) const { per_input(1); }

  void operator()(const ops::Broadcast&) const {}
  void operator()(const ops::Concat&) const {}
  void operator()(const ops::Slice&) const { copied_only(); }
  void operator()(const ops::Pad&) const {}
  void operator()(const ops::Reshape&) const { cost.bytes = 0; }
  void operator()(const ops::Transpose&) const {}
  void operator()(const ops::Take&) const { copied_only(); }
  void operator()(const ops::TakeGrad&) const { per_input(1); }
  void operator()(const ops::TakeWindows&) const {
    copied_only();
    cost.bytes = plus(cost.bytes, static_cast<std::int64_t>(byte_size(in[1])));
  }

  void operator()(const ops::Increment&) const { per_output(1); }
  void operator()(const ops::ClipFactor&) const {
    for (const TensorSpec& spec : in) {
      cost.other_flops = plus(cost.other_flops, times(elements(spec), 2));
    }
  }
  template <class Update>
  void dense_update(const Update& op) const {
    (*this)(op.update);
    cost.macs = times(elements(in[2]), taps(in[0]));
    if (op.bias) cost.other_flops = plus(cost.other_flops, elements(in[2]));
  }
  void operator()(const ops::SgdUpdate& op) const {
    per_output(2 + (op.momentum > 0.0 ? 2 : 0) + (op.nesterov ? 2 : 0) +
               (op.weight_decay > 0.0 ? 2 : 0) + (op.clipped ? 1 : 0));
  }
  void operator()(const ops::AdamUpdate& op) const {
    per_output(12 + (op.weight_decay > 0.0 ? 2 : 0) + (op.clipped ? 1 : 0));
  }
  void operator()(const ops::DenseSgdUpdate& op) const { dense_update(op); }
  void operator()(const ops::DenseAdamUpdate& op) const { dense_update(op); }
  void operator()(const ops::MuonUpdate& op) const {
    const std::int64_t count = elements(in[0]), first = in[0].shape[0];
    const std::int64_t rest = first > 0 ? count / first : 0;
    const std::int64_t rows = std::min(first, rest), columns = std::max(first, rest);
    cost.macs = times(op.iterations, times(times(rows, rows), plus(times(2, columns), rows)));
    per_output(4 + (op.nesterov ? 2 : 0) + (op.clipped ? 1 : 0));
  }
  void operator()(const ops::EmaUpdate&) const { per_output(3); }
  void operator()(const ops::LossScale&) const { cost.other_flops = 4; }
  void operator()(const ops::Commit&) const {}

  template <class Pool>
  static std::int64_t window(const Pool& op) {
    return times(op.kernel_size[0], op.kernel_size[1]);
  }
};

}  // namespace

Cost cost(const Op& op, Specs inputs, Specs outputs) {
  Cost result;
  for (const Specs specs : {inputs, outputs}) {
    for (const TensorSpec& spec : specs) {
      result.bytes = plus(result.bytes, static_cast<std::int64_t>(byte_size(spec)));
    }
  }
  std::visit(Work{inputs, outputs, result}, op);
  return result;
}

}  // namespace pycnn
