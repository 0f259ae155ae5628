#pragma once
#include "backends/cpu/gemm.h"
#include "backends/cpu/simd.isa.h"

// What kernels do at the end of a tile.
namespace pycnn::cpu::PYCNN_ISA {

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
