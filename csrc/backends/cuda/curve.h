#pragma once
#include <cmath>

#include "backends/cuda/numbers.h"

// The element-wise non-linearities: values, and slopes from the value alone.
namespace pycnn::cuda {

enum class CurveKind : std::uint8_t {
  kIdentity,
  kRelu,
  kRelu6,
  kLeakyRelu,
  kSigmoid,
  kTanh,
  kScaledTanh
};

struct Curve {
  CurveKind kind = CurveKind::kIdentity;
  float slope = 0.0f;
};

PYCNN_BOTH float activate(const Curve& curve, float x) {
  switch (curve.kind) {
    case CurveKind::kIdentity:
      return x;
    case CurveKind::kRelu:
      return x < 0.0f ? 0.0f : x;
    case CurveKind::kRelu6:
      return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
    case CurveKind::kLeakyRelu:
      return x > 0.0f ? x : curve.slope * x;
    case CurveKind::kSigmoid: {
      const float e = expf(-fabsf(x));  // never overflows
      return (x < 0.0f ? e : 1.0f) / (1.0f + e);
    }
    case CurveKind::kTanh:
      return tanhf(x);
    case CurveKind::kScaledTanh:
      return 1.7159f * tanhf(x * static_cast<float>(2.0 / 3.0));
  }
  return x;
}

// f(curve) with what converts to the curve: the kinds that most batch norms have are constants, so
// that a loop is without their switch and short enough to be unrolled (kIsShort).
template <CurveKind kKind>
struct FixedCurve {
  static constexpr bool kIsShort = true;
  PYCNN_BOTH operator Curve() const { return {kKind, 0.0f}; }
};
struct AnyCurve {
  static constexpr bool kIsShort = false;
  Curve curve;
  PYCNN_BOTH operator Curve() const { return curve; }
};
template <class F>
PYCNN_BOTH void with_curve(const Curve& curve, const F& f) {
  if (curve.kind == CurveKind::kIdentity)
    f(FixedCurve<CurveKind::kIdentity>{});
  else if (curve.kind == CurveKind::kRelu)
    f(FixedCurve<CurveKind::kRelu>{});
  else
    f(AnyCurve{curve});
}

// What a batch norm makes of a distance from the mean, before its activation. Several kernels look
// at it: said in one operation, it has one rounding and the same bits in all of them, whatever a
// compiler would have joined.
PYCNN_BOTH float normalised(float centered, float factor, float offset) {
  return fmaf(centered, factor, offset);
}

// What comes back through y = activate(x). Not 0 * gradient: where the curve is flat, not even an
// infinite gradient passes.
PYCNN_BOTH float passed(const Curve& curve, float y, float gradient) {
  switch (curve.kind) {
    case CurveKind::kIdentity:
      return gradient;
    case CurveKind::kRelu:
      return y <= 0.0f ? 0.0f : gradient;
    case CurveKind::kRelu6:
      return y <= 0.0f || y >= 6.0f ? 0.0f : gradient;
    case CurveKind::kLeakyRelu:
      return y > 0.0f ? gradient : curve.slope * gradient;
    case CurveKind::kSigmoid:
      return gradient * (y * (1.0f - y));
    case CurveKind::kTanh:
      return gradient * (1.0f - y * y);
    case CurveKind::kScaledTanh:
      return gradient * (static_cast<float>(1.7159 * 2.0 / 3.0) -
                         static_cast<float>(2.0 / 3.0 / 1.7159) * y * y);
  }
  return gradient;
}

}  // namespace pycnn::cuda
