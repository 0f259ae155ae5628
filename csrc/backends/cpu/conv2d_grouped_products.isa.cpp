#include "backends/cpu/conv2d_grouped_tiles.h"
#include "backends/cpu/fetch_lines.isa.h"
#include "backends/cpu/simd.isa.h"
#include "backends/cpu/take_lanes.isa.h"

// Weight gradients in groups: the sums of up to twelve weights stay in registers while the pixels
// pass by. At stride 1 an input pixel, once in a register, meets the gradients of the three outputs
// that see it.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

// Channel kFirst + k of a pixel: the same in all lanes, or, where groups are smaller than a vector,
// that of each lane's group.
template <int kGroup, int kFirst>
PYCNN_INLINE Vec channel_of(const float* pixel, int k) {
  if constexpr (kGroup == 0) return broadcast(pixel[kFirst + k]);
  IVec from = {};
  for (int lane = 0; lane < kLanes; ++lane) from[lane] = (lane & -kGroup) + kFirst + k;
  return take_lanes(load(pixel), from);
}

// What is wanted soon, a share at each pixel; at each row where the loop over pixels has not one
// register to spare, so that a sum would be spilled in every turn.
constexpr bool kFetchAtPixels = kVectorRegisters == 32;
PYCNN_INLINE Fetch fetch_of(const GroupProducts& job) {
  return make_fetch(job.fetch, kFetchAtPixels ? job.rows * job.columns : job.rows);
}
// For all but the first of several passes over the same pixels.
PYCNN_INLINE GroupProducts without_fetch(GroupProducts job) {
  job.fetch = {};
  return job;
}

template <int K, int T>
PYCNN_INLINE void finish(const GroupProducts& job, float* to, const Vec (&sum)[K][T]) {
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k)
#pragma GCC unroll 3
    for (int t = 0; t < T; ++t, to += kLanes)
      store(to, job.accumulate ? load(to) + sum[k][t] : sum[k][t]);
}

// Pixel `j` of the input meets the gradients of outputs j, j - 1 and j - 2.
template <int K, int kGroup, int kFirst>
void slide(const GroupProducts& job, const float* input, float* to) {
  Vec sum[K][3];
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k) sum[k][0] = sum[k][1] = sum[k][2] = zero();
  Fetch fetch = fetch_of(job);
  for (Index row = 0; row < job.rows; ++row) {
    if constexpr (!kFetchAtPixels) step(fetch);
    const float* x = input + row * job.input_row;
    const float* y = job.grad + row * job.grad_row;
    const float* const last = y + (job.columns - 1) * job.grad_column;
    Vec before = load(y);
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
      sum[k][0] = fma(channel_of<kGroup, kFirst>(x, k), before, sum[k][0]);
    x += kInputBlock;
    if (y != last) {
      Vec now = load(y += job.grad_column);
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k) {
        const Vec pixel = channel_of<kGroup, kFirst>(x, k);
        sum[k][0] = fma(pixel, now, sum[k][0]);
        sum[k][1] = fma(pixel, before, sum[k][1]);
      }
      x += kInputBlock;
      while (y != last) {
        if constexpr (kFetchAtPixels) step(fetch);
        const Vec next = load(y += job.grad_column);
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
          // The pixel is read again, rather than a sum spilled in every turn.
          if constexpr (kGroup > 0) asm volatile("" : "+r"(x));
          const Vec pixel = channel_of<kGroup, kFirst>(x, k);
          sum[k][0] = fma(pixel, next, sum[k][0]);
          sum[k][1] = fma(pixel, now, sum[k][1]);
          sum[k][2] = fma(pixel, before, sum[k][2]);
        }
        x += kInputBlock;
        before = now, now = next;
      }
#pragma GCC unroll 8
      for (int k = 0; k < K; ++k)
        sum[k][2] = fma(channel_of<kGroup, kFirst>(x, k), before, sum[k][2]);
      before = now;
    }
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
      sum[k][1] = fma(channel_of<kGroup, kFirst>(x, k), before, sum[k][1]);
      sum[k][2] = fma(channel_of<kGroup, kFirst>(x + kInputBlock, k), before, sum[k][2]);
    }
  }
  finish(job, to, sum);
}

template <int K, int T, int kGroup, int kFirst = 0>
void walk(const GroupProducts& job, const float* input, float* to) {
  Vec sum[K][T];
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k)
#pragma GCC unroll 3
    for (int t = 0; t < T; ++t) sum[k][t] = zero();
  Fetch fetch = fetch_of(job);
  for (Index row = 0; row < job.rows; ++row) {
    if constexpr (!kFetchAtPixels) step(fetch);
    const float* x = input + row * job.input_row;
    const float* y = job.grad + row * job.grad_row;
    for (Index column = 0; column < job.columns; ++column) {
      if constexpr (kFetchAtPixels) step(fetch);
      const Vec grad = load(y);
#pragma GCC unroll 3
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k)
          sum[k][t] = fma(channel_of<kGroup, kFirst>(x + t * kInputBlock, k), grad, sum[k][t]);
      y += job.grad_column;
      x += job.stride * kInputBlock;
    }
  }
  finish(job, to, sum);
}

using Kernel = void (*)(const GroupProducts&, const float*, float*);

// Index: channels - 1.
constexpr Kernel kSliding[] = {slide<1, 0, 0>, slide<2, 0, 0>, slide<3, 0, 0>,
                               slide<4, 0, 0>,
#if defined(__AVX512F__)
                               slide<5, 0, 0>, slide<6, 0, 0>, slide<7, 0, 0>,
                               slide<8, 0, 0>
#endif
};
constexpr Kernel kStrided[] = {walk<1, 3, 0>, walk<2, 3, 0>, walk<3, 3, 0>,
                               walk<4, 3, 0>,
#if defined(__AVX512F__)
                               walk<5, 3, 0>, walk<6, 3, 0>, walk<7, 3, 0>,
                               walk<8, 3, 0>
#endif
};
constexpr Kernel kSingle[] = {walk<1, 1, 0>, walk<2, 1, 0>, walk<3, 1, 0>, walk<4, 1, 0>,
                              walk<5, 1, 0>, walk<6, 1, 0>, walk<7, 1, 0>, walk<8, 1, 0>};

// Groups that are smaller than a vector.
template <int kGroup>
[[maybe_unused]] void add_small_groups(const GroupProducts& job) {
  if (job.taps == 1) return walk<kGroup, 1, kGroup>(job, job.input, job.sums);
  constexpr int kChannels = kGroup < 4 ? kGroup : 4;
  if (job.stride == 1)
    slide<kChannels, kGroup, 0>(job, job.input, job.sums);
  else
    walk<kChannels, 3, kGroup>(job, job.input, job.sums);
  if constexpr (kGroup == 8) {
    const GroupProducts rest = without_fetch(job);
    float* const sums = job.sums + kChannels * 3 * kLanes;
    if (job.stride == 1)
      slide<kChannels, kGroup, kChannels>(rest, job.input, sums);
    else
      walk<kChannels, 3, kGroup, kChannels>(rest, job.input, sums);
  }
}

void add_groups(const GroupProducts& job) {
  switch (job.group) {
    case 2:
      return add_small_groups<2>(job);
#if defined(__AVX2__) || defined(__AVX512F__)
    case 4:
      return add_small_groups<4>(job);
#endif
#if defined(__AVX512F__)
    case 8:
      return add_small_groups<8>(job);
#endif
    default:
      return;
  }
}

}  // namespace

void group_products(const GroupProducts& job) {
  if (job.group > 0) return add_groups(job);
  const Kernel* kernels = job.taps == 1 ? kSingle : job.stride == 1 ? kSliding : kStrided;
  const Index most = job.taps == 1 || kVectorRegisters == 32 ? 8 : 4;
  const Index parts = (job.channels + most - 1) / most;
  const GroupProducts rest = without_fetch(job);
  Index channel = 0;
  for (Index part = 0; part < parts; ++part) {
    const Index end = job.channels * (part + 1) / parts;
    kernels[end - channel - 1](part == 0 ? job : rest, job.input + channel,
                               job.sums + channel * job.taps * kLanes);
    channel = end;
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
