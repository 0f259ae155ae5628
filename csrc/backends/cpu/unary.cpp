#include "backends/cpu/unary.h"

#include <cmath>

#include "backends/cpu/bfloat16_pieces.h"
#include "backends/cpu/pixel_runs.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "backends/cpu/widened.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

constexpr UnaryForm form_of(UnaryKind kind) { return static_cast<UnaryForm>(kind); }
static_assert(form_of(UnaryKind::kHardSigmoid) == UnaryForm::kHardSigmoid &&
              form_of(UnaryKind::kThreshold) == UnaryForm::kThreshold);

constexpr double kSeluScale = 1.05070098735548049342, kSeluAlpha = 1.67326324235437728482;
constexpr double kSqrtHalf = 0.70710678118654752440, kGeluFactor = 0.79788456080286535588;

template <class T>
T sigmoid(T x) {
  const T e = std::exp(-std::abs(x));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

template <class T>
T softplus(T x, T a = T(1)) {
  return (x < T(0) ? T(0) : x) + std::log1p(std::exp(-std::abs(a * x))) / a;
}

// Not std::min and std::max, which let NaN become a bound.
template <class T>
T clip(T x, T low, T high) {
  if (x < low) x = low;
  return x > high ? high : x;
}

template <class T>
T gelu_inner(T x) {
  return T(kGeluFactor) * (x + T(0.044715) * x * x * x);
}

template <class T>
T value_of(UnaryKind kind, T x, T a, T b) {
  switch (kind) {
    case UnaryKind::kAbs:
      return std::abs(x);
    case UnaryKind::kCelu:
      return x > T(0) ? x : a * std::expm1(x / a);
    case UnaryKind::kClip:
      return clip(x, a, b);
    case UnaryKind::kElu:
      return x > T(0) ? x : a * std::expm1(x);
    case UnaryKind::kErf:
      return std::erf(x);
    case UnaryKind::kExp:
      return std::exp(x);
    case UnaryKind::kGelu:
      return T(0.5) * x * std::erfc(x * T(-kSqrtHalf));
    case UnaryKind::kGeluTanh:
      return T(0.5) * x * (T(1) + std::tanh(gelu_inner(x)));
    case UnaryKind::kHardSigmoid:
      return clip(a * x + b, T(0), T(1));
    case UnaryKind::kHardSwish:
      return x * clip(x / T(6) + T(0.5), T(0), T(1));
    case UnaryKind::kLog:
      return std::log(x);
    case UnaryKind::kMish:
      return x * std::tanh(softplus(x));
    case UnaryKind::kPower:
      return std::pow(x, a);
    case UnaryKind::kReciprocal:
      return T(1) / x;
    case UnaryKind::kReciprocalSqrt:
      return T(1) / std::sqrt(x);
    case UnaryKind::kSelu:
      return T(kSeluScale) * (x > T(0) ? x : T(kSeluAlpha) * std::expm1(x));
    case UnaryKind::kSilu:
      return x * sigmoid(x);
    case UnaryKind::kSoftplus:
      return softplus(x, a);
    case UnaryKind::kSoftsign:
      return x / (T(1) + std::abs(x));
    case UnaryKind::kSqrt:
      return std::sqrt(x);
    case UnaryKind::kThreshold:
      return x > a || x != x ? x : b;
  }
  return x;
}

template <class T>
T slope_of(UnaryKind kind, T x, T a, T b) {
  switch (kind) {
    case UnaryKind::kAbs:
      return x > T(0) ? T(1) : x < T(0) ? T(-1) : x;
    case UnaryKind::kCelu:
      return x > T(0) ? T(1) : std::exp(x / a);
    case UnaryKind::kClip:
      return x < a || x > b ? T(0) : T(1);
    case UnaryKind::kElu:
      return x > T(0) ? T(1) : a * std::exp(x);
    case UnaryKind::kErf:
      return T(1.12837916709551257390) * std::exp(-x * x);
    case UnaryKind::kExp:
      return std::exp(x);
    case UnaryKind::kGelu:
      return T(0.5) * std::erfc(x * T(-kSqrtHalf)) +
             x * T(0.39894228040143267794) * std::exp(T(-0.5) * x * x);
    case UnaryKind::kGeluTanh: {
      const T t = std::tanh(gelu_inner(x));
      const T inner = T(kGeluFactor) * (T(1) + T(3 * 0.044715) * x * x);
      return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * inner;
    }
    case UnaryKind::kHardSigmoid: {
      const T y = a * x + b;
      return y > T(0) && y < T(1) ? a : T(0);
    }
    case UnaryKind::kHardSwish:
      return x > T(-3) ? (x < T(3) ? x / T(3) + T(0.5) : T(1)) : T(0);
    case UnaryKind::kLog:
      return T(1) / x;
    case UnaryKind::kMish: {
      const T t = std::tanh(softplus(x));
      return t + x * sigmoid(x) * (T(1) - t * t);
    }
    case UnaryKind::kPower:
      return a == T(0) ? T(0) : a * std::pow(x, a - T(1));
    case UnaryKind::kReciprocal:
      return T(-1) / (x * x);
    case UnaryKind::kReciprocalSqrt:
      return T(-0.5) / (x * std::sqrt(x));
    case UnaryKind::kSelu:
      return T(kSeluScale) * (x > T(0) ? T(1) : T(kSeluAlpha) * std::exp(x));
    case UnaryKind::kSilu: {
      const T s = sigmoid(x);
      return s * (T(1) + x * (T(1) - s));
    }
    case UnaryKind::kSoftplus:
      return sigmoid(a * x);
    case UnaryKind::kSoftsign: {
      const T y = T(1) + std::abs(x);
      return T(1) / (y * y);
    }
    case UnaryKind::kSqrt:
      return T(0.5) / std::sqrt(x);
    case UnaryKind::kThreshold:
      return x > a ? T(1) : T(0);
  }
  return T(1);
}

template <class T, class OpType>
void reference_values(const OpType& op, const T* input, T* output, std::int64_t n) noexcept {
  const T a = static_cast<T>(op.a), b = static_cast<T>(op.b);
  for (std::int64_t i = 0; i < n; ++i) output[i] = value_of(op.kind, input[i], a, b);
}

// Where the function is flat, not even an infinite gradient passes.
template <class T, class OpType>
void reference_gradients(const OpType& op, const T* input, const T* grad_output, T* grad_input,
                         std::int64_t n) noexcept {
  const T a = static_cast<T>(op.a), b = static_cast<T>(op.b);
  for (std::int64_t i = 0; i < n; ++i) {
    const T slope = slope_of(op.kind, input[i], a, b);
    grad_input[i] = slope == T(0) ? T(0) : grad_output[i] * slope;
  }
}

void reference_forward(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Unary>(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain / kExponentialCost,
                    [&](std::int64_t begin, std::int64_t end) {
                      reference_values(op, input + begin, output + begin, end - begin);
                    });
  });
}

void reference_gradient(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::UnaryGrad>(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    const T* grad_output = args.inputs[1].as<const T>();
    T* grad_input = args.outputs[0].as<T>();
    parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain / kExponentialCost,
                    [&](std::int64_t begin, std::int64_t end) {
                      reference_gradients(op, input + begin, grad_output + begin,
                                          grad_input + begin, end - begin);
                    });
  });
}

void values(const UnaryFunctions& functions, const ops::Unary& op, const float* input,
            float* output, std::int64_t n) noexcept {
  if (op.kind == UnaryKind::kPower) return reference_values(op, input, output, n);
  functions.value(form_of(op.kind), static_cast<float>(op.a), static_cast<float>(op.b), input,
                  output, n);
}

void gradients(const UnaryFunctions& functions, const ops::UnaryGrad& op, const float* input,
               const float* grad_output, float* grad_input, std::int64_t n) noexcept {
  if (op.kind == UnaryKind::kPower)
    return reference_gradients(op, input, grad_output, grad_input, n);
  functions.gradient(form_of(op.kind), static_cast<float>(op.a), static_cast<float>(op.b), input,
                     grad_output, grad_input, n);
}

template <const UnaryFunctions& Functions>
void vector_forward(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Unary>(args);
  const auto* input = args.inputs[0].as<const float>();
  auto* output = args.outputs[0].as<float>();
  parallel_runs(args.threads, {&args.inputs[0], &args.outputs[0]},
                [&](const std::int64_t* at, std::int64_t n) {
                  values(Functions, op, input + at[0], output + at[1], n);
                });
}

template <const UnaryFunctions& Functions>
void vector_gradient(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::UnaryGrad>(args);
  const auto* input = args.inputs[0].as<const float>();
  const auto* grad_output = args.inputs[1].as<const float>();
  auto* grad_input = args.outputs[0].as<float>();
  parallel_runs(args.threads, {&args.inputs[0], &args.inputs[1], &args.outputs[0]},
                [&](const std::int64_t* at, std::int64_t n) {
                  gradients(Functions, op, input + at[0], grad_output + at[1], grad_input + at[2],
                            n);
                });
}

template <const UnaryFunctions& Functions>
void bfloat16_forward(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Unary>(args);
  const auto* input = args.inputs[0].as<const BFloat16>();
  auto* output = args.outputs[0].as<BFloat16>();
  parallel_runs(
      args.threads, {&args.inputs[0], &args.outputs[0]},
      [&](const std::int64_t* at, std::int64_t count) {
        in_pieces(*Functions.convert, input + at[0], output + at[1], count,
                  [&](float* x, std::int64_t, std::int64_t n) { values(Functions, op, x, x, n); });
      });
}

template <const UnaryFunctions& Functions>
void bfloat16_gradient(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::UnaryGrad>(args);
  const auto* input = args.inputs[0].as<const BFloat16>();
  const auto* grad_output = args.inputs[1].as<const BFloat16>();
  auto* grad_input = args.outputs[0].as<BFloat16>();
  parallel_runs(args.threads, {&args.inputs[0], &args.inputs[1], &args.outputs[0]},
                [&](const std::int64_t* at, std::int64_t count) {
                  in_pieces(*Functions.convert, grad_output + at[1], input + at[0],
                            grad_input + at[2], count,
                            [&](float* grad, const float* x, std::int64_t n) {
                              gradients(Functions, op, x, grad, grad, n);
                            });
                });
}

Kernel make_unary_kernel(KernelFunction run, std::uint32_t inputs, bool strides) {
  Kernel kernel;
  kernel.run = run;
  kernel.in_place = {inputs};
  kernel.strided_inputs = strides ? inputs : 0;
  kernel.strided_outputs = strides ? 1 : 0;
  return kernel;
}

template <const UnaryFunctions& Functions>
Kernel make_unary(const ops::Unary&, const Problem& problem) {
  const auto run = has_bfloat16(problem) ? bfloat16_forward<Functions> : vector_forward<Functions>;
  return make_unary_kernel(run, 0b1, true);
}
Kernel make_unary_reference(const ops::Unary&, const Problem&) {
  return make_unary_kernel(reference_forward, 0b1, false);
}
template <const UnaryFunctions& Functions>
Kernel make_unary_grad(const ops::UnaryGrad&, const Problem& problem) {
  const auto run =
      has_bfloat16(problem) ? bfloat16_gradient<Functions> : vector_gradient<Functions>;
  return make_unary_kernel(run, 0b11, true);
}
Kernel make_unary_grad_reference(const ops::UnaryGrad&, const Problem&) {
  return make_unary_kernel(reference_gradient, 0b11, false);
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::Unary, "unary", accept_float32, make_unary, kUnary, make_unary_reference,
                      Images::kAny)
PYCNN_DEFINE_VARIANTS(ops::UnaryGrad, "unary_grad", accept_float32, make_unary_grad, kUnary,
                      make_unary_grad_reference, Images::kAny)

}  // namespace pycnn::cpu
