#pragma once
#include <immintrin.h>

#include "backends/cpu/pair_products.h"

// A strip of up to 14 rows times 32 columns by VDPBF16PS, in registers: two loads of weights and
// fourteen broadcasts serve 28 products.
#define PYCNN_INLINE static inline __attribute__((always_inline))

namespace pycnn::cpu::avx512_bf16 {
namespace {

constexpr int kMostRows = 14;

template <int ROWS>
struct Sums {
  __m512 low[ROWS], high[ROWS];
};

PYCNN_INLINE __m512bh pair_at(const char* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return (__m512bh)_mm512_set1_epi32(pair);
}

PYCNN_INLINE __m512bh load(const BFloat16* p) { return (__m512bh)_mm512_loadu_si512(p); }

// Two groups of rows with one step, since two pointers and three multiples of the step reach
// fourteen rows.
struct Rows {
  const char* first;
  const char* second;
  Index step;  // bytes
};

template <int ROWS>
PYCNN_INLINE void multiply(Sums<ROWS>& sums, const Rows& rows, const BFloat16* low,
                           const BFloat16* high, Index pairs) {
  constexpr int kFirst = ROWS / 2;
  const Index step = rows.step, step3 = 3 * step, step5 = 5 * step;
  const char* a = rows.first;
  const char* b = rows.second;
  for (Index pair = 0; pair < pairs; ++pair) {
    const __m512bh l = load(low), h = load(high);
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      const int j = r < kFirst ? r : r - kFirst;
      const Index at = j == 3 ? step3 : j == 5 ? step5 : j == 6 ? 2 * step3 : j * step;
      const __m512bh x = pair_at((r < kFirst ? a : b) + at);
      sums.low[r] = _mm512_dpbf16_ps(sums.low[r], x, l);
      sums.high[r] = _mm512_dpbf16_ps(sums.high[r], x, h);
    }
    a += 2 * sizeof(BFloat16), b += 2 * sizeof(BFloat16);
    low += kPairBlock, high += kPairBlock;
    // Keeps the compiler from turning each address into an induction variable of its own.
    asm volatile("" : "+r"(a), "+r"(b), "+r"(low), "+r"(high));
  }
}

PYCNN_INLINE __m512 widened(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// The larger one of x and floor; x where it is NaN.
PYCNN_INLINE __m512 at_least(__m512 floor, __m512 x) { return _mm512_max_ps(floor, x); }

// 0 where the mask is not above zero; a NaN of it lets x through.
PYCNN_INLINE __m512 masked(__m256i mask, __m512 x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(widened(mask), _mm512_setzero_ps(), _CMP_NLE_UQ),
                             x);
}

}  // namespace
}  // namespace pycnn::cpu::avx512_bf16
