#pragma once
#include "backends/cpu/gemm.h"
#include "backends/cpu/simd.isa.h"

// What kernels do within a tile and at its end.
namespace pycnn::cpu::PYCNN_ISA {

PYCNN_INLINE Vec broadcast_at(const char* p) {
  float x;
  __builtin_memcpy(&x, p, sizeof x);
  return broadcast(x);
}

// Adds x * y to a sum that stays in its register, and in the order of the calls: of several rows of
// such sums GCC makes an order that needs more registers than there are.
PYCNN_INLINE void add_product(Vec& sum, Vec x, Vec y) {
#if defined(__AVX512F__)
  asm volatile("vfmadd231ps {%2, %1, %0|%0, %1, %2}" : "+v"(sum) : "v"(x), "v"(y));
#elif defined(__FMA__)
  asm volatile("vfmadd231ps {%2, %1, %0|%0, %1, %2}" : "+x"(sum) : "x"(x), "x"(y));
#else
  sum = fma(x, y, sum);
#endif
}

template <TileActivation kActivation>
PYCNN_INLINE Vec activated(Vec x, float slope) {
  if constexpr (kActivation == TileActivation::kRelu) return relu(x);
  if constexpr (kActivation == TileActivation::kRelu6) return relu6(x);
  if constexpr (kActivation == TileActivation::kLeakyRelu)
    return select(x > zero(), x, x * broadcast(slope));
  return x;
}

template <TileActivation kActivation, int MR, int NV>
PYCNN_INLINE void activate_all(float slope, Vec (&sum)[MR][NV]) {
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) sum[i][v] = activated<kActivation>(sum[i][v], slope);
}

template <int MR, int NV>
PYCNN_INLINE void activate(TileActivation kind, float slope, Vec (&sum)[MR][NV]) {
  switch (kind) {
    case TileActivation::kIdentity:
      return;
    case TileActivation::kRelu:
      return activate_all<TileActivation::kRelu>(slope, sum);
    case TileActivation::kRelu6:
      return activate_all<TileActivation::kRelu6>(slope, sum);
    case TileActivation::kLeakyRelu:
      return activate_all<TileActivation::kLeakyRelu>(slope, sum);
  }
}

// Written so that a NaN of the mask lets the value through.
PYCNN_INLINE Vec masked(Vec mask, Vec x) { return select(mask <= zero(), zero(), x); }

// Number of valid lanes in vector v of a tile.
PYCNN_INLINE int lanes_of(int lanes, int v) {
  const int left = lanes - v * kLanes;
  return left < 0 ? 0 : (left > kLanes ? kLanes : left);
}

}  // namespace pycnn::cpu::PYCNN_ISA
