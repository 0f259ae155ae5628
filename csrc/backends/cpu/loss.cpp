#include "backends/cpu/loss.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// Losses are means: each chunk of rows or elements leaves its sum, as a double, in scratch, and the
// caller adds these in order.
namespace pycnn::cpu {
namespace {

void store_mean(const KernelArgs& args, const double* parts, std::int64_t chunks, double count) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < chunks; ++i) sum += parts[i];
  with_float(args.outputs[0].spec->dtype, [&](auto type) {
    *args.outputs[0].as<decltype(type)>() = static_cast<decltype(type)>(sum / count);
  });
}

// ---- Cross-entropy: reference

// One row, in float64 whatever the element type.
template <class T>
struct ReferenceRow {
  const T* x;
  std::int64_t n;
  double largest = -std::numeric_limits<double>::infinity();
  double sum = 0.0;

  ReferenceRow(const T* logits, std::int64_t classes) : x(logits), n(classes) {
    for (std::int64_t c = 0; c < n; ++c) largest = std::max(largest, static_cast<double>(x[c]));
    for (std::int64_t c = 0; c < n; ++c) sum += std::exp(static_cast<double>(x[c]) - largest);
  }
  double log_probability(std::int64_t c) const { return (x[c] - largest) - std::log(sum); }
  double probability(std::int64_t c) const { return std::exp(x[c] - largest) / sum; }
};

// What the row should be: smoothed label or smoothed soft target; NaN for a label that is no class.
template <class T>
double wanted(const TensorView& labels, double smoothing, std::int64_t row, std::int64_t c,
              std::int64_t n) {
  double target = 0.0;
  if (is_floating(labels.spec->dtype)) {
    target = labels.as<const T>()[row * n + c];
  } else {
    const std::int64_t label = labels.spec->dtype == DType::kInt64
                                   ? labels.as<const std::int64_t>()[row]
                                   : labels.as<const std::int32_t>()[row];
    if (label < 0 || label >= n) return std::numeric_limits<double>::quiet_NaN();
    target = label == c ? 1.0 : 0.0;
  }
  return (1.0 - smoothing) * target + smoothing / static_cast<double>(n);
}

void reference_loss(const KernelArgs& args) noexcept {
  const double smoothing = op_of<ops::SoftmaxCrossEntropy>(args).label_smoothing;
  const std::int64_t rows = args.inputs[0].dim(0), n = args.inputs[0].dim(1);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    double sum = 0.0;
    for (std::int64_t r = 0; r < rows; ++r) {
      const ReferenceRow<T> row(args.inputs[0].as<const T>() + r * n, n);
      for (std::int64_t c = 0; c < n; ++c) {
        const double target = wanted<T>(args.inputs[1], smoothing, r, c, n);
        const double log_p = row.log_probability(c);
        if (target != 0.0 || !std::isinf(log_p)) sum -= target * log_p;
      }
    }
    *args.outputs[0].as<T>() = static_cast<T>(sum / static_cast<double>(rows));
  });
}

void reference_grad(const KernelArgs& args) noexcept {
  const double smoothing = op_of<ops::SoftmaxCrossEntropyGrad>(args).label_smoothing;
  const std::int64_t rows = args.inputs[0].dim(0), n = args.inputs[0].dim(1);
  const double scale = scalar_of(args.inputs[2]) / static_cast<double>(rows);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t r = 0; r < rows; ++r) {
      const ReferenceRow<T> row(args.inputs[0].as<const T>() + r * n, n);
      double total = 0.0;
      for (std::int64_t c = 0; c < n; ++c) total += wanted<T>(args.inputs[1], smoothing, r, c, n);
      for (std::int64_t c = 0; c < n; ++c) {
        const double target = wanted<T>(args.inputs[1], smoothing, r, c, n);
        args.outputs[0].as<T>()[r * n + c] =
            static_cast<T>((row.probability(c) * total - target) * scale);
      }
    }
  });
}

// ---- Cross-entropy: vectors

CrossEntropyRows rows_of(const KernelArgs& args, double smoothing, std::int64_t begin,
                         std::int64_t end) noexcept {
  const TensorView& labels = args.inputs[1];
  CrossEntropyRows rows{};
  rows.rows = end - begin;
  rows.n = args.inputs[0].dim(1);
  rows.logits = args.inputs[0].as<const float>() + begin * rows.n;
  rows.smoothing = smoothing;
  if (labels.spec->dtype == DType::kInt64)
    rows.labels64 = labels.as<const std::int64_t>() + begin;
  else if (labels.spec->dtype == DType::kInt32)
    rows.labels32 = labels.as<const std::int32_t>() + begin;
  else
    rows.targets = labels.as<const float>() + begin * rows.n;
  return rows;
}

template <const LossFunctions& Functions>
void vector_loss(const KernelArgs& args) noexcept {
  const double smoothing = op_of<ops::SoftmaxCrossEntropy>(args).label_smoothing;
  const std::int64_t count = args.inputs[0].dim(0),
                     grain = row_grain(args.inputs[0].dim(1), kExponentialCost);
  auto* parts = reinterpret_cast<double*>(args.scratch);
  parallel_ranges(args.threads, count, grain, [&](std::int64_t begin, std::int64_t end) {
    parts[begin / grain] = Functions.cross_entropy(rows_of(args, smoothing, begin, end));
  });
  store_mean(args, parts, ceil_div(count, grain), static_cast<double>(count));
}

template <const LossFunctions& Functions>
void vector_grad(const KernelArgs& args) noexcept {
  const double smoothing = op_of<ops::SoftmaxCrossEntropyGrad>(args).label_smoothing;
  const std::int64_t count = args.inputs[0].dim(0), n = args.inputs[0].dim(1);
  const auto scale = static_cast<float>(scalar_of(args.inputs[2]) / static_cast<double>(count));
  parallel_ranges(args.threads, count, row_grain(n, kExponentialCost),
                  [&](std::int64_t begin, std::int64_t end) {
                    CrossEntropyRows rows = rows_of(args, smoothing, begin, end);
                    rows.grad_scale = scale;
                    rows.grad = args.outputs[0].as<float>() + begin * n;
                    Functions.cross_entropy_grad(rows);
                  });
}

// ---- Mean squared error

void reference_squared_error(const KernelArgs& args) noexcept {
  const std::int64_t count = count_of(args.inputs[0]);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    const T* target = args.inputs[1].as<const T>();
    double sum = 0.0;
    for (std::int64_t i = 0; i < count; ++i) {
      const double difference = static_cast<double>(input[i]) - static_cast<double>(target[i]);
      sum += difference * difference;
    }
    *args.outputs[0].as<T>() = static_cast<T>(sum / static_cast<double>(count));
  });
}

void reference_squared_error_grad(const KernelArgs& args) noexcept {
  const std::int64_t count = count_of(args.inputs[0]);
  const double scale = 2.0 * scalar_of(args.inputs[2]) / static_cast<double>(count);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    const T* target = args.inputs[1].as<const T>();
    for (std::int64_t i = 0; i < count; ++i) {
      const double difference = static_cast<double>(input[i]) - static_cast<double>(target[i]);
      args.outputs[0].as<T>()[i] = static_cast<T>(difference * scale);
    }
  });
}

template <const LossFunctions& Functions>
void vector_squared_error(const KernelArgs& args) noexcept {
  const std::int64_t count = count_of(args.inputs[0]);
  const auto* input = args.inputs[0].as<const float>();
  const auto* target = args.inputs[1].as<const float>();
  auto* parts = reinterpret_cast<double*>(args.scratch);
  parallel_ranges(args.threads, count, kElementGrain, [=](std::int64_t begin, std::int64_t end) {
    parts[begin / kElementGrain] =
        Functions.squared_error(input + begin, target + begin, end - begin);
  });
  store_mean(args, parts, ceil_div(count, kElementGrain), static_cast<double>(count));
}

template <const LossFunctions& Functions>
void vector_squared_error_grad(const KernelArgs& args) noexcept {
  const std::int64_t count = count_of(args.inputs[0]);
  const auto scale =
      static_cast<float>(2.0 * scalar_of(args.inputs[2]) / static_cast<double>(count));
  const auto* input = args.inputs[0].as<const float>();
  const auto* target = args.inputs[1].as<const float>();
  auto* grad = args.outputs[0].as<float>();
  parallel_ranges(args.threads, count, kElementGrain, [=](std::int64_t begin, std::int64_t end) {
    Functions.squared_error_grad(input + begin, target + begin, scale, grad + begin, end - begin);
  });
}

// ---- Selection

Kernel make_kernel(KernelFunction run, std::int64_t parts, std::uint32_t in_place) {
  Kernel kernel;
  kernel.run = run;
  kernel.scratch_bytes = static_cast<std::size_t>(parts) * sizeof(double);
  kernel.in_place = {in_place};
  return kernel;
}

template <const LossFunctions& Functions>
Kernel make_loss(const ops::SoftmaxCrossEntropy&, const Problem& problem) {
  const Shape& logits = problem.inputs[0].shape;
  return make_kernel(vector_loss<Functions>,
                     ceil_div(logits[0], row_grain(logits[1], kExponentialCost)), 0);
}
Kernel make_loss_reference(const ops::SoftmaxCrossEntropy&, const Problem&) {
  return make_kernel(reference_loss, 0, 0);
}
template <const LossFunctions& Functions>
Kernel make_grad(const ops::SoftmaxCrossEntropyGrad&, const Problem&) {
  return make_kernel(vector_grad<Functions>, 0, 0b1);
}
Kernel make_grad_reference(const ops::SoftmaxCrossEntropyGrad&, const Problem&) {
  return make_kernel(reference_grad, 0, 0);
}
template <const LossFunctions& Functions>
Kernel make_squared_error(const ops::MeanSquaredError&, const Problem& problem) {
  const std::int64_t count = element_count(problem.inputs[0].shape);
  return make_kernel(vector_squared_error<Functions>, ceil_div(count, kElementGrain), 0);
}
Kernel make_squared_error_reference(const ops::MeanSquaredError&, const Problem&) {
  return make_kernel(reference_squared_error, 0, 0);
}
template <const LossFunctions& Functions>
Kernel make_squared_error_grad(const ops::MeanSquaredErrorGrad&, const Problem&) {
  return make_kernel(vector_squared_error_grad<Functions>, 0, 0b11);
}
Kernel make_squared_error_grad_reference(const ops::MeanSquaredErrorGrad&, const Problem&) {
  return make_kernel(reference_squared_error_grad, 0, 0b11);
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::SoftmaxCrossEntropy, "softmax_cross_entropy", accept_float32, make_loss,
                      kLoss, make_loss_reference)
PYCNN_DEFINE_VARIANTS(ops::SoftmaxCrossEntropyGrad, "softmax_cross_entropy_grad", accept_float32,
                      make_grad, kLoss, make_grad_reference)
PYCNN_DEFINE_VARIANTS(ops::MeanSquaredError, "mean_squared_error", accept_float32,
                      make_squared_error, kLoss, make_squared_error_reference)
PYCNN_DEFINE_VARIANTS(ops::MeanSquaredErrorGrad, "mean_squared_error_grad", accept_float32,
                      make_squared_error_grad, kLoss, make_squared_error_grad_reference)

}  // namespace pycnn::cpu
