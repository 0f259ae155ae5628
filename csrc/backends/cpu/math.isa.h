#pragma once
#include "backends/cpu/simd.isa.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

// Elementary functions of Vec, lane by lane, with our own polynomials: the result depends on the
// instruction set only (fused multiply-adds or not), never on the host's libm. NaN comes through,
// infinities and overflow follow IEEE, results that are denormal are right. Largest errors, over
// all float32 arguments, in units of the last place:
//
//            AVX-512, AVX2   baseline
//   exp          1.04           1.01
//   log          0.86           0.87
//   tanh         2.52           2.56
//   sigmoid      2.41           2.41
//
// (The zero-masked intrinsics with a full mask are the plain ones without gcc 12's false warning of
// an uninitialised value.)
namespace pycnn::cpu::PYCNN_ISA {

PYCNN_INLINE UVec as_unsigned(Vec v) {
  UVec r;
  __builtin_memcpy(&r, &v, sizeof r);
  return r;
}
PYCNN_INLINE Vec as_float(UVec v) {
  Vec r;
  __builtin_memcpy(&r, &v, sizeof r);
  return r;
}

PYCNN_INLINE Vec abs(Vec x) { return as_float(as_unsigned(x) & 0x7FFFFFFFu); }
PYCNN_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
  return as_float((as_unsigned(magnitude) & 0x7FFFFFFFu) | (as_unsigned(sign) & 0x80000000u));
}

PYCNN_INLINE Vec sqrt(Vec x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_sqrt_ps(0xFFFF, (__m512)x);
#elif defined(__AVX2__)
  return (Vec)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (Vec)_mm_sqrt_ps((__m128)x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// x = n ln 2 + r with |r| <= ln(2) / 2: what exp, tanh and sigmoid have in common.
struct ExpParts {
  Vec r;        // the remainder
  Vec n;        // a whole number
  UVec n_bits;  // the same as an integer, modulo 2^32
  Vec expm1_r;  // exp(r) - 1, relative error 2^-26
};
PYCNN_INLINE ExpParts split_exp(Vec x) {
  // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the low bits of the sum.
  const Vec magic = broadcast(12582912.0f);
  const Vec shifted = fma(x, broadcast(1.44269504f), magic);
  ExpParts parts;
  parts.n = shifted - magic;
  parts.n_bits = as_unsigned(shifted) - as_unsigned(magic);
  // ln 2 in two parts, the first so short that its product with n is exact.
  parts.r = fma(parts.n, broadcast(-0.693359375f), x);
  parts.r = fma(parts.n, broadcast(2.12194440e-4f), parts.r);
  const Vec r = parts.r;
  Vec p = fma(r, broadcast(0x1.6c6114p-10f), broadcast(0x1.12240ep-7f));
  p = fma(p, r, broadcast(0x1.5555b0p-5f));
  p = fma(p, r, broadcast(0x1.5554b6p-3f));
  p = fma(p, r, broadcast(0.5f));
  parts.expm1_r = fma(p, r * r, r);
  return parts;
}

// 2^n for n in [-126, 127].
PYCNN_INLINE Vec power_of_two(UVec n) { return as_float((n + 127u) << 23); }

PYCNN_INLINE Vec exp(Vec x) {
  // Beyond these the result is infinite or zero anyway. NaN passes both comparisons.
  x = select(x > broadcast(89.0f), broadcast(89.0f), x);
  x = select(x < broadcast(-104.0f), broadcast(-104.0f), x);
  const ExpParts parts = split_exp(x);
  const Vec p = parts.expm1_r + broadcast(1.0f);
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_scalef_ps(0xFFFF, (__m512)p, (__m512)parts.n);
#else
  // In two steps, since 2^n itself may be out of range; only the last one can round.
  const UVec half = (UVec)((IVec)parts.n_bits >> 1);
  return p * power_of_two(half) * power_of_two(parts.n_bits - half);
#endif
}

PYCNN_INLINE Vec log(Vec x) {
  const Vec infinity = broadcast(__builtin_inff());
  const IVec denormal = x < broadcast(0x1p-126f);
  const Vec normal = select(denormal, x * broadcast(0x1p25f), x);
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
  const UVec bits = as_unsigned(normal) - 0x3F3504F3u;
  Vec e = to_float((IVec)bits >> 23);
  e = select(denormal, e - broadcast(25.0f), e);
  const Vec f = as_float((bits & 0x007FFFFFu) + 0x3F3504F3u) - broadcast(1.0f);
  Vec p = fma(f, broadcast(-0.076379776f), broadcast(0.12763046f));
  p = fma(p, f, broadcast(-0.13159432f));
  p = fma(p, f, broadcast(0.14201458f));
  p = fma(p, f, broadcast(-0.16623414f));
  p = fma(p, f, broadcast(0.20001246f));
  p = fma(p, f, broadcast(-0.2500082f));
  p = fma(p, f, broadcast(0.3333333f));
  const Vec f2 = f * f;
  Vec y = fma(p, f2 * f, e * broadcast(-2.12194440e-4f));
  y = fma(f2, broadcast(-0.5f), y) + f;
  y = fma(e, broadcast(0.693359375f), y);
  y = select(x == zero(), -infinity, y);
  y = select(x == infinity, infinity, y);
  return select((x < zero()) | (x != x), broadcast(__builtin_nanf("")), y);
}

// tanh |x| = d / (d + 2) with d = exp(2 |x|) - 1, which keeps its relative precision near 0.
PYCNN_INLINE Vec tanh(Vec x) {
  Vec a = abs(x);
  // tanh(9.1) rounds to 1.
  a = select(a > broadcast(9.1f), broadcast(9.1f), a);
  const ExpParts parts = split_exp(a + a);
  const Vec scale = power_of_two(parts.n_bits);
  const Vec d = fma(parts.expm1_r, scale, scale - broadcast(1.0f));
  return copy_sign(d / (d + broadcast(2.0f)), x);
}

// 1 / (1 + exp(-x)), by way of exp(-|x|), which cannot overflow.
PYCNN_INLINE Vec sigmoid(Vec x) {
  const Vec e = exp(-abs(x));
  const Vec one = broadcast(1.0f);
  return select(x < zero(), e, one) / (one + e);
}

// LeCun et al. 1998, appendix A.
PYCNN_INLINE Vec scaled_tanh(Vec x) {
  return broadcast(1.7159f) * tanh(x * broadcast(2.0f / 3.0f));
}

PYCNN_INLINE Vec leaky_relu(Vec x, Vec slope) { return select(x > zero(), x, slope * x); }

// All lanes combined, the upper half with the lower half until one is left.
#if defined(__SSE2__)
PYCNN_INLINE float sum_lanes(Vec v) {
#if defined(__AVX512F__)
  const __m256 eight = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xFF, (__m512)v, 0),
                                     _mm512_maskz_extractf32x8_ps(0xFF, (__m512)v, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
#elif defined(__AVX2__)
  const __m256 eight = (__m256)v;
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
#else
  __m128 four = (__m128)v;
#endif
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}
#else
PYCNN_INLINE float sum_lanes(Vec v) {
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}
#endif

// The largest lane; NaN if any lane is NaN.
PYCNN_INLINE float max_lanes(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) {
      const float a = lanes[i], b = lanes[i + half];
      lanes[i] = ((a > b) | (a != a)) ? a : b;
    }
  return lanes[0];
}

}  // namespace pycnn::cpu::PYCNN_ISA
