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

}  // namespace pycnn::cpu::PYCNN_ISA
