#pragma once
#include "backends/cpu/math.isa.h"

// Sums and maxima of one row, in an order that the length alone decides.
namespace pycnn::cpu::PYCNN_ISA {

// v in the first n lanes, `other` behind.
PYCNN_INLINE Vec keep_lanes(Vec v, int n, Vec other) {
  if (n == kLanes) return v;
  IVec lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return select(lane < (n - IVec{}), v, other);
}

// Calls f(i, lanes) for vector after vector of a row of n.
template <class F>
PYCNN_INLINE void for_each_vector(std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, static_cast<int>(n - i));
}

// The sum of all lanes of term(i, lanes) over a row of n; lanes that do not exist must be zero.
// Blocks of 16 vectors are summed on their own, so that the rounding errors of long rows stay
// small.
template <class F>
PYCNN_INLINE float sum_row(std::int64_t n, F term) {
  Vec total = zero();
  std::int64_t i = 0;
  while (i + kLanes <= n) {
    const std::int64_t left = n - n % kLanes - i;
    const std::int64_t end = i + (left < 16 * kLanes ? left : 16 * kLanes);
    Vec block = zero();
    for (; i < end; i += kLanes) block += term(i, kLanes);
    total += block;
  }
  if (i < n) total += term(i, static_cast<int>(n - i));
  return sum_lanes(total);
}

// The largest lane, where no lane is NaN.
PYCNN_INLINE float largest_lane(Vec v) {
#if defined(__SSE2__)
#if defined(__AVX512F__)
  const __m256 eight = _mm256_max_ps(_mm512_maskz_extractf32x8_ps(0xFF, (__m512)v, 0),
                                     _mm512_maskz_extractf32x8_ps(0xFF, (__m512)v, 1));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
#elif defined(__AVX2__)
  __m128 four = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
#else
  __m128 four = (__m128)v;
#endif
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
#else
  return max_lanes(v);
#endif
}

// The largest element, ignoring NaN; -inf for a row without any number.
PYCNN_INLINE float max_of_numbers(const float* x, std::int64_t n) {
  const Vec lowest = broadcast(-__builtin_inff());
  Vec largest = lowest;
  for_each_vector(n, [&](std::int64_t i, int lanes) {
    const Vec v = keep_lanes(load_lanes(x + i, lanes), lanes, lowest);
    largest = select(v > largest, v, largest);
  });
  return largest_lane(largest);
}

}  // namespace pycnn::cpu::PYCNN_ISA
