#pragma once
#include <cmath>

#include "pycnn/ops.h"

// The activations by their formulas, value by value, for the reference kernels.
namespace pycnn::cpu {

template <class T>
T activated(ActivationKind kind, T x, T slope) {
  switch (kind) {
    case ActivationKind::kIdentity:
      return x;
    case ActivationKind::kRelu:
      return x < T(0) ? T(0) : x;
    case ActivationKind::kRelu6:
      return x < T(0) ? T(0) : x > T(6) ? T(6) : x;
    case ActivationKind::kLeakyRelu:
      return x > T(0) ? x : slope * x;
    case ActivationKind::kSigmoid: {
      const T e = std::exp(-std::abs(x));
      return (x < T(0) ? e : T(1)) / (T(1) + e);
    }
    case ActivationKind::kTanh:
      return std::tanh(x);
    case ActivationKind::kScaledTanh:
      return T(1.7159) * std::tanh(x * T(2.0 / 3.0));
  }
  return x;
}

// df/dx from y = f(x); see activation.isa.cpp for the forms chosen.
template <class T>
T activation_slope(ActivationKind kind, T y, T slope) {
  switch (kind) {
    case ActivationKind::kIdentity:
      return T(1);
    case ActivationKind::kRelu:
      return y <= T(0) ? T(0) : T(1);
    case ActivationKind::kRelu6:
      return y <= T(0) || y >= T(6) ? T(0) : T(1);
    case ActivationKind::kLeakyRelu:
      return y > T(0) ? T(1) : slope;
    case ActivationKind::kSigmoid:
      return y * (T(1) - y);
    case ActivationKind::kTanh:
      return T(1) - y * y;
    case ActivationKind::kScaledTanh:
      return T(1.7159 * 2.0 / 3.0) - T(2.0 / 3.0 / 1.7159) * y * y;
  }
  return T(1);
}

// What passes of the gradient of y = f(x). Not 0 * gradient: where relu is closed, not even an
// infinite one passes.
template <class T>
T passed_back(ActivationKind kind, T y, T grad_output, T slope) {
  const T d = activation_slope(kind, y, slope);
  const bool rectifies = kind == ActivationKind::kRelu || kind == ActivationKind::kRelu6;
  return rectifies && d == T(0) ? T(0) : grad_output * d;
}

}  // namespace pycnn::cpu
