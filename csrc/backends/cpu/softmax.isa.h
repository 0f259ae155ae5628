#pragma once
#include "backends/cpu/reduce.isa.h"

namespace pycnn::cpu::PYCNN_ISA {

// Sum of exp(x - largest). A NaN in the row makes it NaN, which then reaches every result of the
// row; so `largest` may ignore NaN.
PYCNN_INLINE float sum_exp(const float* x, std::int64_t n, float largest) {
  const Vec shift = broadcast(largest);
  return sum_row(n, [&](std::int64_t i, int lanes) {
    return keep_lanes(exp(load_lanes(x + i, lanes) - shift), lanes, zero());
  });
}

// The same, and keeps the terms; y may be x.
PYCNN_INLINE float store_exp(const float* x, float* y, std::int64_t n, float largest) {
  const Vec shift = broadcast(largest);
  return sum_row(n, [&](std::int64_t i, int lanes) {
    const Vec e = keep_lanes(exp(load_lanes(x + i, lanes) - shift), lanes, zero());
    store_lanes(y + i, e, lanes);
    return e;
  });
}

PYCNN_INLINE float log_of(float x) { return log(broadcast(x))[0]; }

}  // namespace pycnn::cpu::PYCNN_ISA
