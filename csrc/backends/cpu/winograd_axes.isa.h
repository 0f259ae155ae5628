#pragma once
#include "backends/cpu/simd.isa.h"

// Winograd's transforms along one axis (winograd.h). A tile's outputs and points say it all: the
// window has POINTS - TILE + 1 taps.
namespace pycnn::cpu::PYCNN_ISA {

template <int POINTS>
PYCNN_INLINE void input_axis(const Vec* x, Vec* y, int step) {
  if constexpr (POINTS == 4) {
    y[0] = x[0] - x[2];
    y[step] = x[1] + x[2];
    y[2 * step] = x[2] - x[1];
    y[3 * step] = x[1] - x[3];
  } else {
    const Vec four = broadcast(4.0f), minus_five = broadcast(-5.0f);
    const Vec even = fma(broadcast(-4.0f), x[2], x[4]), odd = fma(broadcast(-4.0f), x[1], x[3]);
    const Vec near = x[4] - x[2], difference = x[3] - x[1], far = difference + difference;
    y[0] = fma(four, x[0], fma(minus_five, x[2], x[4]));
    y[step] = even + odd;
    y[2 * step] = even - odd;
    y[3 * step] = near + far;
    y[4 * step] = near - far;
    y[5 * step] = fma(four, x[1], fma(minus_five, x[3], x[5]));
  }
}

template <int TILE, int POINTS>
PYCNN_INLINE void output_axis(const Vec* x, Vec* y, int step) {
  const Vec sum = x[1] + x[2], difference = x[1] - x[2];
  if constexpr (POINTS == 4) {
    y[0] = x[0] + sum;
    y[step] = difference - x[3];
  } else {
    const Vec far_sum = x[3] + x[4], far_difference = x[3] - x[4];
    y[0] = (x[0] + sum) + far_sum;
    y[step] = fma(broadcast(2.0f), far_difference, difference);
    if constexpr (TILE == 2) {
      y[step] = y[step] + x[5];
    } else {
      y[2 * step] = fma(broadcast(4.0f), far_sum, sum);
      y[3 * step] = fma(broadcast(8.0f), far_difference, difference) + x[5];
    }
  }
}

template <int TILE, int POINTS>
PYCNN_INLINE void weight_axis(const Vec* x, Vec* y, int step) {
  const Vec ends = x[0] + x[2];
  if constexpr (POINTS == 4) {
    const Vec half = broadcast(0.5f);
    y[0] = x[0];
    y[step] = half * (ends + x[1]);
    y[2 * step] = half * (ends - x[1]);
    y[3 * step] = x[2];
  } else {
    // Thirds last: they are the only numbers here that float32 does not hold.
    const Vec sixth = broadcast(1.0f / 6), twenty_fourth = broadcast(1.0f / 24);
    y[0] = broadcast(0.25f) * x[0];
    if constexpr (TILE == 2) {
      const Vec even = ends + x[4], odd = x[1] + x[3];
      const Vec far_even = fma(broadcast(16.0f), x[4], fma(broadcast(4.0f), x[2], x[0]));
      const Vec far_odd = fma(broadcast(8.0f), x[3], x[1] + x[1]);
      y[step] = -(sixth * (even + odd));
      y[2 * step] = -(sixth * (even - odd));
      y[3 * step] = twenty_fourth * (far_even + far_odd);
      y[4 * step] = twenty_fourth * (far_even - far_odd);
      y[5 * step] = x[4];
    } else {
      const Vec wide = fma(broadcast(4.0f), x[2], x[0]);
      y[step] = -(sixth * (ends + x[1]));
      y[2 * step] = -(sixth * (ends - x[1]));
      y[3 * step] = twenty_fourth * fma(broadcast(2.0f), x[1], wide);
      y[4 * step] = twenty_fourth * fma(broadcast(-2.0f), x[1], wide);
      y[5 * step] = x[2];
    }
  }
}

// The transpose of output_axis.
template <int TILE, int POINTS>
PYCNN_INLINE void gradient_axis(const Vec* x, Vec* y, int step) {
  if constexpr (TILE == 2) {
    y[0] = x[0];
    y[step] = x[0] + x[1];
    y[2 * step] = x[0] - x[1];
    if constexpr (POINTS == 4) {
      y[3 * step] = -x[1];
    } else {
      y[3 * step] = fma(broadcast(2.0f), x[1], x[0]);
      y[4 * step] = fma(broadcast(-2.0f), x[1], x[0]);
      y[5 * step] = x[1];
    }
  } else {
    const Vec even = x[0] + x[2], odd = x[1] + x[3];
    const Vec far_even = fma(broadcast(4.0f), x[2], x[0]);
    const Vec far_odd = fma(broadcast(8.0f), x[3], x[1] + x[1]);
    y[0] = x[0];
    y[step] = even + odd;
    y[2 * step] = even - odd;
    y[3 * step] = far_even + far_odd;
    y[4 * step] = far_even - far_odd;
    y[5 * step] = x[3];
  }
}

// The transpose of weight_axis.
template <int TILE, int POINTS>
PYCNN_INLINE void sums_axis(const Vec* x, Vec* y, int step) {
  const Vec sum = x[1] + x[2], difference = x[1] - x[2];
  if constexpr (POINTS == 4) {
    const Vec half = broadcast(0.5f);
    y[0] = fma(half, sum, x[0]);
    y[step] = half * difference;
    y[2 * step] = fma(half, sum, x[3]);
  } else {
    // Thirds last, as above.
    const Vec far_sum = x[3] + x[4], far_difference = x[3] - x[4];
    const Vec small = broadcast(1.0f / 24) * fma(broadcast(-4.0f), sum, far_sum);
    y[0] = fma(broadcast(0.25f), x[0], small);
    y[step] = broadcast(1.0f / 12) * fma(broadcast(-2.0f), difference, far_difference);
    y[2 * step] = broadcast(1.0f / 6) * (far_sum - sum);
    if constexpr (TILE == 4) {
      y[2 * step] = y[2 * step] + x[5];
    } else {
      const Vec sixth = broadcast(1.0f / 6);
      y[3 * step] = sixth * fma(broadcast(2.0f), far_difference, -difference);
      y[4 * step] = sixth * fma(broadcast(4.0f), far_sum, -sum) + x[5];
    }
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
