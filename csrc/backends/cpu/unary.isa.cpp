#include "backends/cpu/unary.h"

#include "backends/cpu/math.isa.h"

// One loop for all functions and one for all derivatives, each with a function of a vector that is
// not inlined: what it computes costs more than the call, and each formula is compiled once.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

using namespace unary_constants;  // NOLINT(google-build-using-namespace)

PYCNN_INLINE Vec all(float x) { return broadcast(x); }
PYCNN_INLINE Vec at_most(Vec x, Vec limit) { return select(x > limit, limit, x); }
PYCNN_INLINE Vec at_least(Vec x, Vec limit) { return select(x < limit, limit, x); }

// exp(x) - 1 for x <= 0, right near 0 too. exp(-17.4) is less than half of the last place of 1.
PYCNN_INLINE Vec expm1_negative(Vec x) {
  const ExpParts parts = split_exp(at_least(x, all(-17.4f)));
  const Vec scale = power_of_two(parts.n_bits);
  return fma(parts.expm1_r, scale, scale - all(1.0f));
}

// log(1 + x) for x in [0, 1]: what is lost in the sum is given back by the quotient.
PYCNN_INLINE Vec log1p(Vec x) {
  const Vec sum = all(1.0f) + x, added = sum - all(1.0f);
  return select(added == zero(), x, log(sum) * (x / select(added == zero(), all(1.0f), added)));
}

// For |x| below 1 x times a polynomial of x^2, beyond it 1 - exp of a polynomial, fitted at
// Chebyshev's points; within 2.3 units of the last place.
PYCNN_INLINE Vec erf(Vec x) {
  const Vec size = abs(x), m = at_most(size, all(4.0f)), t = size * size;
  Vec p = fma(t, all(0x1.4a9dacp-14f), all(-0x1.a46b4p-11f));
  p = fma(p, t, all(0x1.541636p-8f));
  p = fma(p, t, all(-0x1.b7fb38p-6f));
  p = fma(p, t, all(0x1.ce2d18p-4f));
  p = fma(p, t, all(-0x1.81273ep-2f));
  p = fma(p, t, all(0x1.20dd74p+0f));
  Vec q = fma(m, all(-0x1.be96cap-17f), all(0x1.4cff98p-12f));
  q = fma(q, m, all(-0x1.c27a24p-9f));
  q = fma(q, m, all(0x1.72a37cp-6f));
  q = fma(q, m, all(-0x1.a731cep-4f));
  q = fma(q, m, all(-0x1.47373ep-1f));
  q = fma(q, m, all(-0x1.203caep+0f));
  q = fma(q, m, all(-0x1.8cde9cp-11f));
  return select(size < all(1.0f), x * p, copy_sign(all(1.0f) - exp(q), x));
}

// tanh(log(1 + exp(x))), by way of e = exp(-|x|).
PYCNN_INLINE Vec tanh_softplus(Vec x, Vec e) {
  const Vec two = all(2.0f), square = e * e;
  const Vec numerator = select(x > zero(), fma(e, two, all(1.0f)), fma(e, two, square));
  return numerator / (numerator + select(x > zero(), two * square, two));
}

PYCNN_INLINE Vec sigmoid_of(Vec x, Vec e) {
  return select(x < zero(), e, all(1.0f)) / (all(1.0f) + e);
}

PYCNN_INLINE Vec gelu_inner(Vec x) { return all(kGeluFactor) * fma(x * x * x, all(kGeluCubic), x); }

__attribute__((noinline)) Vec value_of(UnaryForm form, Vec x, Vec a, Vec b) {
  const Vec one = all(1.0f);
  switch (form) {
    case UnaryForm::kAbs:
      return abs(x);
    case UnaryForm::kElu:
    case UnaryForm::kCelu:
    case UnaryForm::kSelu: {
      Vec factor = a, exponent = x;
      if (form == UnaryForm::kCelu) exponent = x / a;
      if (form == UnaryForm::kSelu) factor = all(kSeluAlpha);
      const Vec y = select(x > zero(), x, factor * expm1_negative(at_most(exponent, zero())));
      return form == UnaryForm::kSelu ? all(kSeluScale) * y : y;
    }
    case UnaryForm::kClip:
      return at_most(at_least(x, a), b);
    case UnaryForm::kErf:
      return erf(x);
    case UnaryForm::kExp:
      return exp(x);
    case UnaryForm::kGelu:
      return all(0.5f) * x * (one + erf(x * all(kSqrtHalf)));
    case UnaryForm::kGeluTanh:
      return all(0.5f) * x * (one + tanh(gelu_inner(x)));
    case UnaryForm::kHardSigmoid:
      return at_least(at_most(fma(a, x, b), one), zero());
    case UnaryForm::kHardSwish:
      return x * at_least(at_most(fma(x, all(1.0f / 6.0f), all(0.5f)), one), zero());
    case UnaryForm::kLog:
      return log(x);
    case UnaryForm::kMish:
      return x * tanh_softplus(x, exp(-abs(x)));
    case UnaryForm::kReciprocal:
      return one / x;
    case UnaryForm::kReciprocalSqrt:
      return one / sqrt(x);
    case UnaryForm::kSilu:
      return x * sigmoid(x);
    case UnaryForm::kSoftplus:
      return at_least(x, zero()) + log1p(exp(-abs(a * x))) / a;
    case UnaryForm::kSoftsign:
      return x / (one + abs(x));
    case UnaryForm::kSqrt:
      return sqrt(x);
    case UnaryForm::kThreshold:
      return select((x > a) | (x != x), x, b);
    case UnaryForm::kPower:
      break;
  }
  return x;
}

__attribute__((noinline)) Vec slope_of(UnaryForm form, Vec x, Vec a, Vec b) {
  const Vec one = all(1.0f), half = all(0.5f);
  switch (form) {
    case UnaryForm::kAbs:
      return select(x > zero(), one, select(x < zero(), -one, x));
    case UnaryForm::kElu:
    case UnaryForm::kCelu:
    case UnaryForm::kSelu: {
      Vec factor = a, exponent = x, open = one;
      if (form == UnaryForm::kCelu) factor = one, exponent = x / a;
      if (form == UnaryForm::kSelu) factor = all(kSeluAlpha * kSeluScale), open = all(kSeluScale);
      return select(x > zero(), open, factor * exp(exponent));
    }
    case UnaryForm::kClip:
      return select((x < a) | (x > b), zero(), one);
    case UnaryForm::kErf:
      return all(1.12837916709551257390f) * exp(-(x * x));
    case UnaryForm::kExp:
      return exp(x);
    case UnaryForm::kGelu:
      return fma(x, all(0.39894228040143267794f) * exp(-half * x * x),
                 half * (one + erf(x * all(kSqrtHalf))));
    case UnaryForm::kGeluTanh: {
      const Vec t = tanh(gelu_inner(x));
      const Vec inner = all(kGeluFactor) * fma(x * x, all(3.0f * kGeluCubic), one);
      return half * (one + t) + half * x * (one - t * t) * inner;
    }
    case UnaryForm::kHardSigmoid: {
      const Vec y = fma(a, x, b);
      return select((y > zero()) & (y < one), a, zero());
    }
    case UnaryForm::kHardSwish: {
      const Vec y = fma(x, all(1.0f / 3.0f), half);
      return select(x > all(-3.0f), select(x < all(3.0f), y, one), zero());
    }
    case UnaryForm::kLog:
      return one / x;
    case UnaryForm::kMish: {
      const Vec e = exp(-abs(x)), t = tanh_softplus(x, e);
      return fma(x * sigmoid_of(x, e), one - t * t, t);
    }
    case UnaryForm::kReciprocal:
      return -one / (x * x);
    case UnaryForm::kReciprocalSqrt:
      return -half / (x * sqrt(x));
    case UnaryForm::kSilu: {
      const Vec s = sigmoid(x);
      return s * fma(x, one - s, one);
    }
    case UnaryForm::kSoftplus:
      return sigmoid(a * x);
    case UnaryForm::kSoftsign: {
      const Vec y = one + abs(x);
      return one / (y * y);
    }
    case UnaryForm::kSqrt:
      return half / sqrt(x);
    case UnaryForm::kThreshold:
      return select(x > a, one, zero());
    case UnaryForm::kPower:
      break;
  }
  return one;
}

void value(UnaryForm form, float a, float b, const float* x, float* y, std::int64_t n) {
  const Vec first = broadcast(a), second = broadcast(b);
  for (std::int64_t i = 0; i < n; i += kLanes) {
    if (n - i >= kLanes) {
      store(y + i, value_of(form, load(x + i), first, second));
    } else {
      const int rest = static_cast<int>(n - i);
      store_partial(y + i, value_of(form, load_partial(x + i, rest), first, second), rest);
    }
  }
}

PYCNN_INLINE Vec pass(Vec slope, Vec grad) { return select(slope == zero(), zero(), slope * grad); }

void gradient(UnaryForm form, float a, float b, const float* x, const float* grad, float* y,
              std::int64_t n) {
  const Vec first = broadcast(a), second = broadcast(b);
  for (std::int64_t i = 0; i < n; i += kLanes) {
    if (n - i >= kLanes) {
      store(y + i, pass(slope_of(form, load(x + i), first, second), load(grad + i)));
    } else {
      const int rest = static_cast<int>(n - i);
      const Vec slope = slope_of(form, load_partial(x + i, rest), first, second);
      store_partial(y + i, pass(slope, load_partial(grad + i, rest)), rest);
    }
  }
}

}  // namespace

extern const UnaryFunctions kUnary = {value, gradient, &kConvert};

}  // namespace pycnn::cpu::PYCNN_ISA
