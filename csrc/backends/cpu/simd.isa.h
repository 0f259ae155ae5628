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
  const UVec nearest = bits + 0x7FFFu + ((bits >> 16) & 1u);
  // Cutting the mantissa of a NaN could leave an infinity.
  return v != v ? bits | 0x00400000u : nearest;
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

// The larger one, first operand's NaN first, then the second's: NaN always comes through.
PYCNN_INLINE Vec max_nan(Vec a, Vec b) { return select((a > b) | (a != a), a, b); }
PYCNN_INLINE Vec relu(Vec x) { return select(x < zero(), zero(), x); }
PYCNN_INLINE Vec relu6(Vec x) {
  const Vec six = broadcast(6.0f);
  return select(x > six, six, relu(x));
}

}  // namespace pycnn::cpu::PYCNN_ISA
