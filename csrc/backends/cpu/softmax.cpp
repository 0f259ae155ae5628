#include "backends/cpu/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

struct Rows {
  std::int64_t rows, columns, grain;
};

// Over the last axis; a chunk is a whole number of rows.
Rows rows_of(const TensorView& view) noexcept {
  const std::int64_t count = count_of(view);
  const std::int64_t columns = view.spec->shape.empty() ? 1 : view.spec->shape.back();
  if (count == 0) return {0, columns, 1};
  return {count / columns, columns, row_grain(columns, kExponentialCost)};
}

// The references compute in float64 whatever the element type.
template <class T>
double largest_of(const T* x, std::int64_t n) noexcept {
  double largest = -std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, static_cast<double>(x[i]));
  return largest;
}
template <class T>
double sum_exp(const T* x, std::int64_t n, double largest) noexcept {
  double sum = 0.0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]) - largest);
  return sum;
}

template <bool kLog>
void reference_forward(const KernelArgs& args) noexcept {
  const Rows size = rows_of(args.outputs[0]);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t row = 0; row < size.rows; ++row) {
      const T* x = args.inputs[0].as<const T>() + row * size.columns;
      T* y = args.outputs[0].as<T>() + row * size.columns;
      const double largest = largest_of(x, size.columns);
      const double sum = sum_exp(x, size.columns, largest);
      for (std::int64_t c = 0; c < size.columns; ++c) {
        const double shifted = static_cast<double>(x[c]) - largest;
        y[c] = static_cast<T>(kLog ? shifted - std::log(sum) : std::exp(shifted) / sum);
      }
    }
  });
}

template <bool kLog>
void reference_gradient(const KernelArgs& args) noexcept {
  const Rows size = rows_of(args.outputs[0]);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t row = 0; row < size.rows; ++row) {
      const T* y = args.inputs[0].as<const T>() + row * size.columns;
      const T* g = args.inputs[1].as<const T>() + row * size.columns;
      T* gx = args.outputs[0].as<T>() + row * size.columns;
      double sum = 0.0;
      for (std::int64_t c = 0; c < size.columns; ++c)
        sum += kLog ? static_cast<double>(g[c]) : static_cast<double>(y[c]) * g[c];
      for (std::int64_t c = 0; c < size.columns; ++c) {
        const double out = y[c], grad = g[c];
        gx[c] = static_cast<T>(kLog ? grad - std::exp(out) * sum : out * (grad - sum));
      }
    }
  });
}

template <const SoftmaxFunctions& Functions, SoftmaxFunctions::Forward SoftmaxFunctions::*kForward>
void vector_forward(const KernelArgs& args) noexcept {
  const Rows size = rows_of(args.outputs[0]);
  const auto* input = args.inputs[0].as<const float>();
  auto* output = args.outputs[0].as<float>();
  parallel_ranges(args.threads, size.rows, size.grain, [=](std::int64_t begin, std::int64_t end) {
    (Functions.*kForward)(input + begin * size.columns, output + begin * size.columns, end - begin,
                          size.columns);
  });
}

template <const SoftmaxFunctions& Functions,
          SoftmaxFunctions::Gradient SoftmaxFunctions::*kGradient>
void vector_gradient(const KernelArgs& args) noexcept {
  const Rows size = rows_of(args.outputs[0]);
  const auto* output = args.inputs[0].as<const float>();
  const auto* grad_output = args.inputs[1].as<const float>();
  auto* grad_input = args.outputs[0].as<float>();
  parallel_ranges(args.threads, size.rows, size.grain, [=](std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * size.columns;
    (Functions.*kGradient)(output + at, grad_output + at, grad_input + at, end - begin,
                           size.columns);
  });
}

Kernel make_kernel(KernelFunction run, std::uint32_t in_place) {
  Kernel kernel;
  kernel.run = run;
  kernel.in_place = {in_place};
  return kernel;
}

template <const SoftmaxFunctions& Functions>
Kernel make_softmax(const ops::Softmax&, const Problem&) {
  return make_kernel(vector_forward<Functions, &SoftmaxFunctions::softmax>, 0b1);
}
template <const SoftmaxFunctions& Functions>
Kernel make_log_softmax(const ops::LogSoftmax&, const Problem&) {
  return make_kernel(vector_forward<Functions, &SoftmaxFunctions::log_softmax>, 0b1);
}
template <const SoftmaxFunctions& Functions>
Kernel make_softmax_grad(const ops::SoftmaxGrad&, const Problem&) {
  return make_kernel(vector_gradient<Functions, &SoftmaxFunctions::softmax_grad>, 0b11);
}
template <const SoftmaxFunctions& Functions>
Kernel make_log_softmax_grad(const ops::LogSoftmaxGrad&, const Problem&) {
  return make_kernel(vector_gradient<Functions, &SoftmaxFunctions::log_softmax_grad>, 0b11);
}
Kernel make_softmax_reference(const ops::Softmax&, const Problem&) {
  return make_kernel(reference_forward<false>, 0b1);
}
Kernel make_log_softmax_reference(const ops::LogSoftmax&, const Problem&) {
  return make_kernel(reference_forward<true>, 0b1);
}
Kernel make_softmax_grad_reference(const ops::SoftmaxGrad&, const Problem&) {
  return make_kernel(reference_gradient<false>, 0b11);
}
Kernel make_log_softmax_grad_reference(const ops::LogSoftmaxGrad&, const Problem&) {
  return make_kernel(reference_gradient<true>, 0b11);
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::Softmax, "softmax", accept_float32, make_softmax, kSoftmax,
                      make_softmax_reference)
PYCNN_DEFINE_VARIANTS(ops::LogSoftmax, "log_softmax", accept_float32, make_log_softmax, kSoftmax,
                      make_log_softmax_reference)
PYCNN_DEFINE_VARIANTS(ops::SoftmaxGrad, "softmax_grad", accept_float32, make_softmax_grad, kSoftmax,
                      make_softmax_grad_reference)
PYCNN_DEFINE_VARIANTS(ops::LogSoftmaxGrad, "log_softmax_grad", accept_float32,
                      make_log_softmax_grad, kSoftmax, make_log_softmax_grad_reference)

}  // namespace pycnn::cpu
