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

// Number of valid lanes in vector v of a tile.
PYCNN_INLINE int lanes_of(int lanes, int v) {
  const int left = lanes - v * kLanes;
  return left < 0 ? 0 : (left > kLanes ? kLanes : left);
}

}  // namespace pycnn::cpu::PYCNN_ISA
