#include <cmath>

#include "backends/cuda/map.h"
#include "backends/cuda/unary.h"

namespace pycnn::cuda {
namespace {

using namespace unary_constants;  // NOLINT(google-build-using-namespace)

PYCNN_BOTH float sigmoid(float x) {
  const float e = expf(-fabsf(x));  // never overflows
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

PYCNN_BOTH float softplus(float x, float a) {
  return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(a * x))) / a;
}

// Not fminf and fmaxf, which let NaN become a bound.
PYCNN_BOTH float clip(float x, float low, float high) {
  if (x < low) x = low;
  return x > high ? high : x;
}

PYCNN_BOTH float gelu_inner(float x) { return kGeluFactor * (x + kGeluCubic * x * x * x); }

PYCNN_BOTH float value_of(const UnaryFunction& f, float x) {
  switch (f.form) {
    case UnaryForm::kAbs:
      return fabsf(x);
    case UnaryForm::kCelu:
      return x > 0.0f ? x : f.a * expm1f(x / f.a);
    case UnaryForm::kClip:
      return clip(x, f.a, f.b);
    case UnaryForm::kElu:
      return x > 0.0f ? x : f.a * expm1f(x);
    case UnaryForm::kErf:
      return erff(x);
    case UnaryForm::kExp:
      return expf(x);
    case UnaryForm::kGelu:
      return 0.5f * x * erfcf(x * -kSqrtHalf);
    case UnaryForm::kGeluTanh:
      return 0.5f * x * (1.0f + tanhf(gelu_inner(x)));
    case UnaryForm::kHardSigmoid:
      return clip(f.a * x + f.b, 0.0f, 1.0f);
    case UnaryForm::kHardSwish:
      return x * clip(x / 6.0f + 0.5f, 0.0f, 1.0f);
    case UnaryForm::kLog:
      return logf(x);
    case UnaryForm::kMish:
      return x * tanhf(softplus(x, 1.0f));
    case UnaryForm::kPower:
      return powf(x, f.a);
    case UnaryForm::kReciprocal:
      return 1.0f / x;
    case UnaryForm::kReciprocalSqrt:
      return 1.0f / sqrtf(x);
    case UnaryForm::kSelu:
      return kSeluScale * (x > 0.0f ? x : kSeluAlpha * expm1f(x));
    case UnaryForm::kSilu:
      return x * sigmoid(x);
    case UnaryForm::kSoftplus:
      return softplus(x, f.a);
    case UnaryForm::kSoftsign:
      return x / (1.0f + fabsf(x));
    case UnaryForm::kSqrt:
      return sqrtf(x);
    case UnaryForm::kThreshold:
      return x > f.a || is_nan(x) ? x : f.b;
  }
  return x;
}

PYCNN_BOTH float slope_of(const UnaryFunction& f, float x) {
  switch (f.form) {
    case UnaryForm::kAbs:
      return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x;
    case UnaryForm::kCelu:
      return x > 0.0f ? 1.0f : expf(x / f.a);
    case UnaryForm::kClip:
      return x < f.a || x > f.b ? 0.0f : 1.0f;
    case UnaryForm::kElu:
      return x > 0.0f ? 1.0f : f.a * expf(x);
    case UnaryForm::kErf:
      return 1.12837916709551257390f * expf(-x * x);
    case UnaryForm::kExp:
      return expf(x);
    case UnaryForm::kGelu:
      return 0.5f * erfcf(x * -kSqrtHalf) + x * 0.39894228040143267794f * expf(-0.5f * x * x);
    case UnaryForm::kGeluTanh: {
      const float t = tanhf(gelu_inner(x));
      const float inner = kGeluFactor * (1.0f + 3.0f * kGeluCubic * x * x);
      return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
    }
    case UnaryForm::kHardSigmoid: {
      const float y = f.a * x + f.b;
      return y > 0.0f && y < 1.0f ? f.a : 0.0f;
    }
    case UnaryForm::kHardSwish:
      return x > -3.0f ? (x < 3.0f ? x / 3.0f + 0.5f : 1.0f) : 0.0f;
    case UnaryForm::kLog:
      return 1.0f / x;
    case UnaryForm::kMish: {
      const float t = tanhf(softplus(x, 1.0f));
      return t + x * sigmoid(x) * (1.0f - t * t);
    }
    case UnaryForm::kPower:
      return f.a == 0.0f ? 0.0f : f.a * powf(x, f.a - 1.0f);
    case UnaryForm::kReciprocal:
      return -1.0f / (x * x);
    case UnaryForm::kReciprocalSqrt:
      return -0.5f / (x * sqrtf(x));
    case UnaryForm::kSelu:
      return kSeluScale * (x > 0.0f ? 1.0f : kSeluAlpha * expf(x));
    case UnaryForm::kSilu: {
      const float s = sigmoid(x);
      return s * (1.0f + x * (1.0f - s));
    }
    case UnaryForm::kSoftplus:
      return sigmoid(f.a * x);
    case UnaryForm::kSoftsign: {
      const float y = 1.0f + fabsf(x);
      return 1.0f / (y * y);
    }
    case UnaryForm::kSqrt:
      return 0.5f / sqrtf(x);
    case UnaryForm::kThreshold:
      return x > f.a ? 1.0f : 0.0f;
  }
  return 1.0f;
}

template <class T>
struct Values {
  static constexpr int kWidth = kVector<T>;
  UnaryFunction function;
  const T* input;
  T* output;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth];
    load(input + begin, n, x);
    for (float& value : x) value = value_of(function, value);
    store(output + begin, n, x);
  }
};

// Where the function is flat, not even an infinite gradient passes.
template <class T>
struct Gradients {
  static constexpr int kWidth = kVector<T>;
  UnaryFunction function;
  const T* input;
  const T* grad_output;
  T* grad_input;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth], g[kWidth];
    load(input + begin, n, x);
    load(grad_output + begin, n, g);
    for (int i = 0; i < kWidth; ++i) {
      const float slope = slope_of(function, x[i]);
      g[i] = slope == 0.0f ? 0.0f : g[i] * slope;
    }
    store(grad_input + begin, n, g);
  }
};

}  // namespace

void unary(DeviceQueue& queue, Image image, const UnaryFunction& function, const void* input,
           void* output, std::int64_t count) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_map(queue, Values<T>{function, static_cast<const T*>(input), static_cast<T*>(output)},
               count);
  });
}

void unary_grad(DeviceQueue& queue, Image image, const UnaryFunction& function, const void* input,
                const void* grad_output, void* grad_input, std::int64_t count) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_map(queue,
               Gradients<T>{function, static_cast<const T*>(input),
                            static_cast<const T*>(grad_output), static_cast<T*>(grad_input)},
               count);
  });
}

}  // namespace pycnn::cuda
