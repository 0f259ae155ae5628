#pragma once
#include "backends/cpu/simd.isa.h"

namespace pycnn::cpu::PYCNN_ISA {

// Lane i of the result is lane from[i] of x; numbers are taken modulo the lanes.
PYCNN_INLINE Vec take_lanes(Vec x, IVec from) {
#if defined(__clang__)  // which has no shuffle by a vector of numbers
  Vec taken;
  for (int i = 0; i < kLanes; ++i) taken[i] = x[from[i] & (kLanes - 1)];
  return taken;
#else
  return __builtin_shuffle(x, from);
#endif
}

// Of two vectors: numbers from kLanes on are those of y.
PYCNN_INLINE Vec take_lanes(Vec x, Vec y, IVec from) {
#if defined(__clang__)
  Vec taken;
  for (int i = 0; i < kLanes; ++i)
    taken[i] = from[i] < kLanes ? x[from[i] & (kLanes - 1)] : y[from[i] & (kLanes - 1)];
  return taken;
#else
  return __builtin_shuffle(x, y, from);
#endif
}

// Rows to columns: each turn weaves a row of the upper half with one of the lower half.
PYCNN_INLINE void transpose(Vec (&x)[kLanes]) {
  IVec front = {}, back = {};
  for (int i = 0; i < kLanes; ++i) {
    front[i] = i / 2 + i % 2 * kLanes;
    back[i] = front[i] + kLanes / 2;
  }
#pragma GCC unroll 4
  for (int turn = 1; turn < kLanes; turn *= 2) {
    Vec y[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      y[2 * i] = take_lanes(x[i], x[i + kLanes / 2], front);
      y[2 * i + 1] = take_lanes(x[i], x[i + kLanes / 2], back);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) x[i] = y[i];
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
