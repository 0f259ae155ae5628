#pragma once
#include <cstddef>
#include <cstdint>

#include "core/half_types.h"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

// Vectors of float for one instruction set. A .isa.cpp file is compiled once per set, with
// PYCNN_ISA its namespace, and includes only its contract header and this one (and math.isa.h).
// Everything here is always inlined: an out-of-line copy could be taken by the linker for code that
// must run on older machines. No standard library containers or algorithms.
#ifndef PYCNN_ISA
#error "compile this file through pycnn_add_isa_source"
#endif

#define PYCNN_INLINE static inline __attribute__((always_inline))

namespace pycnn::cpu::PYCNN_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kVectorRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kVectorRegisters = 16;
#else
constexpr int kLanes = 4;  // SSE, NEON, or whatever the compiler makes of it
constexpr int kVectorRegisters = 16;
#endif

using Vec = float __attribute__((vector_size(kLanes * 4)));
using IVec = std::int32_t
    __attribute__((vector_size(kLanes * 4)));  // also comparison masks: 0 or -1 per lane
using UVec = std::uint32_t __attribute__((vector_size(kLanes * 4)));

PYCNN_INLINE Vec broadcast(float x) { return x - Vec{}; }
PYCNN_INLINE Vec zero() { return Vec{}; }

PYCNN_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
PYCNN_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }

#if !defined(__AVX2__) && !defined(__AVX512F__)
// Not inlined: a kernel's tail has dozens of them, and it is not where its time goes.
[[maybe_unused]] static __attribute__((noinline)) Vec load_first(const float* p, int n) {
  Vec v = {};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
[[maybe_unused]] static __attribute__((noinline)) void store_first(float* p, Vec v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
#endif

// First n lanes (0 <= n <= kLanes); the others are zero when loading and untouched when storing.
// Nothing beyond the n elements is read or written.
PYCNN_INLINE Vec load_partial(const float* p, int n) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
#elif defined(__AVX2__)
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return (Vec)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
#else
  return n >= kLanes ? load(p) : load_first(p, n);
#endif
}
PYCNN_INLINE void store_partial(float* p, Vec v, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), (__m512)v);
#elif defined(__AVX2__)
  // A masked store takes some processors as long as a dozen others.
  if (n >= kLanes) return store(p, v);
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane), (__m256)v);
#else
  if (n >= kLanes)
    store(p, v);
  else
    store_first(p, v, n);
#endif
}
// The same where n may be a constant: kLanes is the plain load or store then.
PYCNN_INLINE Vec load_lanes(const float* p, int n) {
  return n == kLanes ? load(p) : load_partial(p, n);
}
PYCNN_INLINE void store_lanes(float* p, Vec v, int n) {
  if (n == kLanes)
    store(p, v);
  else
    store_partial(p, v, n);
}

// a * b + c. Fused on AVX2 and AVX-512; two roundings on the baseline.
PYCNN_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

PYCNN_INLINE Vec select(IVec mask, Vec yes, Vec no) { return mask ? yes : no; }
PYCNN_INLINE IVec as_int(Vec v) {
  IVec r;
  __builtin_memcpy(&r, &v, sizeof r);
  return r;
}
PYCNN_INLINE Vec as_float(IVec v) {
  Vec r;
  __builtin_memcpy(&r, &v, sizeof r);
  return r;
}
PYCNN_INLINE Vec to_float(IVec v) { return __builtin_convertvector(v, Vec); }
PYCNN_INLINE IVec to_int_truncated(Vec v) { return __builtin_convertvector(v, IVec); }

// bfloat16 in memory, float in registers. Storing rounds to nearest, ties to even; NaN stays NaN.
using HalfVec = std::uint16_t __attribute__((vector_size(kLanes * 2)));

// The rounded value in the upper half of each lane; the lower half holds what is left over.
PYCNN_INLINE UVec rounded_bits(Vec v) {
  UVec bits;
  __builtin_memcpy(&bits, &v, sizeof bits);
#if defined(__AVX512F__)
  const __m512i x = (__m512i)bits;
  const __mmask16 odd = _mm512_test_epi32_mask(x, _mm512_set1_epi32(0x10000));
  const __m512i to_even = _mm512_mask_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7FFF)), odd,
                                                x, _mm512_set1_epi32(0x8000));
  const __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  return (UVec)_mm512_mask_or_epi32(to_even, nan, x, _mm512_set1_epi32(0x00400000));
#else
  const UVec nearest = bits + 0x7FFFu + ((bits >> 16) & 1u);
  // Cutting the mantissa of a NaN could leave an infinity.
  return v != v ? bits | 0x00400000u : nearest;
#endif
}
PYCNN_INLINE Vec round_to_bfloat16(Vec v) {
  return as_float((IVec)(rounded_bits(v) & 0xFFFF0000u));
}

PYCNN_INLINE Vec load(const BFloat16* p) {
  HalfVec half;
  __builtin_memcpy(&half, p, sizeof half);
  return as_float((IVec)(__builtin_convertvector(half, UVec) << 16));
}
PYCNN_INLINE void store(BFloat16* p, Vec v) {
  const HalfVec half = __builtin_convertvector(rounded_bits(v) >> 16, HalfVec);
  __builtin_memcpy(p, &half, sizeof half);
}
// Without rounding, for numbers of bfloat16: cuts off what lies below one.
PYCNN_INLINE void store_cut(BFloat16* p, Vec v) {
  const HalfVec half = __builtin_convertvector((UVec)as_int(v) >> 16, HalfVec);
  __builtin_memcpy(p, &half, sizeof half);
}
#if defined(__AVX512F__)
PYCNN_INLINE Vec load_partial(const BFloat16* p, int n) {
  const HalfVec half = (HalfVec)_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1u), p);
  return as_float((IVec)(__builtin_convertvector(half, UVec) << 16));
}
PYCNN_INLINE void store_partial(BFloat16* p, Vec v, int n) {
  const HalfVec half = __builtin_convertvector(rounded_bits(v) >> 16, HalfVec);
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1u), (__m256i)half);
}
#else
// Not inlined, as load_first: tails are many and short.
[[maybe_unused]] static __attribute__((noinline)) Vec load_partial(const BFloat16* p, int n) {
  BFloat16 all[kLanes] = {};
  for (int i = 0; i < n; ++i) all[i] = p[i];
  return load(all);
}
[[maybe_unused]] static __attribute__((noinline)) void store_partial(BFloat16* p, Vec v, int n) {
  BFloat16 all[kLanes];
  store(all, v);
  for (int i = 0; i < n; ++i) p[i] = all[i];
}
#endif
PYCNN_INLINE Vec load_lanes(const BFloat16* p, int n) {
  return n == kLanes ? load(p) : load_partial(p, n);
}
PYCNN_INLINE void store_lanes(BFloat16* p, Vec v, int n) {
  if (n == kLanes)
    store(p, v);
  else
    store_partial(p, v, n);
}

// Two vectors side by side. Of bfloat16 on AVX-512 that is one load or store of 32 elements, with
// one permutation a vector to widen and one for both to narrow.
struct Pair {
  Vec first, second;
};
PYCNN_INLINE Pair load_pair(const float* p) { return {load(p), load(p + kLanes)}; }
PYCNN_INLINE void store_pair(float* p, Pair v) {
  store(p, v.first);
  store(p + kLanes, v.second);
}
#if defined(__AVX512F__)
PYCNN_INLINE Pair load_pair(const BFloat16* p) {
  const __m512i half = _mm512_loadu_si512(p);
  // Each element into both words of its lane, of which the lower is cleared.
  const __m512i lower = _mm512_set_epi16(15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9, 8, 8,
                                         7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  const __m512i upper =
      _mm512_set_epi16(31, 31, 30, 30, 29, 29, 28, 28, 27, 27, 26, 26, 25, 25, 24, 24, 23, 23, 22,
                       22, 21, 21, 20, 20, 19, 19, 18, 18, 17, 17, 16, 16);
  return {(Vec)_mm512_maskz_permutexvar_epi16(0xAAAAAAAAu, lower, half),
          (Vec)_mm512_maskz_permutexvar_epi16(0xAAAAAAAAu, upper, half)};
}
// The upper words of all lanes.
PYCNN_INLINE void store_upper(BFloat16* p, UVec first, UVec second) {
  const __m512i odd_words =
      _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                       25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  _mm512_storeu_si512(p, _mm512_permutex2var_epi16((__m512i)first, odd_words, (__m512i)second));
}
PYCNN_INLINE void store_pair(BFloat16* p, Pair v) {
  store_upper(p, rounded_bits(v.first), rounded_bits(v.second));
}
PYCNN_INLINE void store_pair_cut(BFloat16* p, Pair v) {
  store_upper(p, (UVec)as_int(v.first), (UVec)as_int(v.second));
}
#else
PYCNN_INLINE Pair load_pair(const BFloat16* p) { return {load(p), load(p + kLanes)}; }
PYCNN_INLINE void store_pair(BFloat16* p, Pair v) {
  store(p, v.first);
  store(p + kLanes, v.second);
}
PYCNN_INLINE void store_pair_cut(BFloat16* p, Pair v) {
  store_cut(p, v.first);
  store_cut(p + kLanes, v.second);
}
#endif

// kVectors vectors side by side, or (kVectors = 1) the first `lanes` of one.
template <int kVectors, class T>
PYCNN_INLINE void load_side_by_side(const T* p, Vec (&v)[kVectors], int lanes) {
  if constexpr (kVectors == 1) {
    v[0] = load_lanes(p, lanes);
  } else {
    for (int i = 0; i < kVectors; i += 2) {
      const Pair pair = load_pair(p + i * kLanes);
      v[i] = pair.first, v[i + 1] = pair.second;
    }
  }
}
template <int kVectors, class T>
PYCNN_INLINE void store_side_by_side(T* p, const Vec (&v)[kVectors], int lanes) {
  if constexpr (kVectors == 1) {
    store_lanes(p, v[0], lanes);
  } else {
    for (int i = 0; i < kVectors; i += 2) store_pair(p + i * kLanes, {v[i], v[i + 1]});
  }
}

// Past the caches, to memory that begins at a line: lines that are written whole need not be read
// before. Other threads see them after `end_streams`.
PYCNN_INLINE void stream(float* p, Vec v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)v);
#else
  store(p, v);
#endif
}
PYCNN_INLINE void end_streams() {
#if defined(__AVX2__) || defined(__AVX512F__)
  _mm_sfence();
#endif
}

// The larger one, first operand's NaN first, then the second's: NaN always comes through.
PYCNN_INLINE Vec max_nan(Vec a, Vec b) { return select((a > b) | (a != a), a, b); }
// The larger one; a NaN for x comes through, as does x of two zeros.
PYCNN_INLINE Vec at_least(Vec x, Vec low) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_max_ps(0xFFFFu, (__m512)low, (__m512)x);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)low, (__m256)x);
#else
  return select(x < low, low, x);
#endif
}
PYCNN_INLINE Vec relu(Vec x) { return at_least(x, zero()); }
PYCNN_INLINE Vec relu6(Vec x) {
  const Vec six = broadcast(6.0f);
  return select(x > six, six, relu(x));
}

}  // namespace pycnn::cpu::PYCNN_ISA
