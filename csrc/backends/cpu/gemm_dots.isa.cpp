#include "backends/cpu/gemm.h"
#include "backends/cpu/simd.isa.h"

// Products of rows with rows, both contiguous: vectors of partial sums, added up at the end.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr int kMaxB = 3;  // rows of b at a time; with four of a they hide the latency of the sums
constexpr int kMaxA = 4;

// As a binary tree.
PYCNN_INLINE float sum_of(Vec v) {
  float x[kLanes];
  store(x, v);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

template <int MA, int MB>
void tile_kernel(const RowDots& job, const float* a, const float* b, float* sums) {
  Vec sum[MB][MA];
#pragma GCC unroll 3
  for (int j = 0; j < MB; ++j)
#pragma GCC unroll 4
    for (int i = 0; i < MA; ++i) sum[j][i] = zero();
  auto add = [&](Index k, auto load_at) __attribute__((always_inline)) {
    Vec y[MB];
#pragma GCC unroll 3
    for (int j = 0; j < MB; ++j) y[j] = load_at(b + j * job.b_pitch + k);
#pragma GCC unroll 4
    for (int i = 0; i < MA; ++i) {
      const Vec x = load_at(a + i * job.a_pitch + k);
#pragma GCC unroll 3
      for (int j = 0; j < MB; ++j) sum[j][i] = fma(x, y[j], sum[j][i]);
    }
  };
  Index k = 0;
  for (; k + kLanes <= job.count; k += kLanes)
    add(
        k, [](const float* p) __attribute__((always_inline)) { return load(p); });
  if (const int rest = static_cast<int>(job.count - k))
    add(
        k, [rest](const float* p) __attribute__((always_inline)) { return load_partial(p, rest); });
#pragma GCC unroll 3
  for (int j = 0; j < MB; ++j)
#pragma GCC unroll 4
    for (int i = 0; i < MA; ++i) {
      float& to = sums[j * job.sums_pitch + i];
      const float x = sum_of(sum[j][i]);
      to = job.accumulate ? to + x : x;
    }
}

using TileKernel = void (*)(const RowDots&, const float*, const float*, float*);

// [rows of b - 1][rows of a - 1]
constexpr TileKernel kKernels[][kMaxA] = {
    {tile_kernel<1, 1>, tile_kernel<2, 1>, tile_kernel<3, 1>, tile_kernel<4, 1>},
    {tile_kernel<1, 2>, tile_kernel<2, 2>, tile_kernel<3, 2>, tile_kernel<4, 2>},
    {tile_kernel<1, 3>, tile_kernel<2, 3>, tile_kernel<3, 3>, tile_kernel<4, 3>},
};

}  // namespace

void row_dots(const RowDots& job) {
  for (Index j = 0; j < job.b_rows; j += kMaxB) {
    const Index bs = job.b_rows - j < kMaxB ? job.b_rows - j : kMaxB;
    for (Index i = 0; i < job.a_rows; i += kMaxA) {
      const Index as = job.a_rows - i < kMaxA ? job.a_rows - i : kMaxA;
      kKernels[bs - 1][as - 1](job, job.a + i * job.a_pitch, job.b + j * job.b_pitch,
                               job.sums + j * job.sums_pitch + i);
    }
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
