// The tiles of bfloat16 of conv2d_grouped_tiles.h by VDPBF16PS: up to 14 pixels of one vector of
// output channels. A pair of an input pixel, once in a register, is multiplied with all taps of its
// run that the pixel meets.
#include "backends/cpu/conv2d_grouped_fetch.isa.h"
#include "backends/cpu/conv2d_grouped_tiles.h"
#include "backends/cpu/pair_strip.isa.h"

namespace pycnn::cpu::avx512_bf16 {
namespace {

constexpr int kMostPixels = 14;

// How the lanes of a vector get their pair.
enum class Source { kBroadcast, kPick };

template <Source kSource>
PYCNN_INLINE __m512bh pixel_at(const float* x, __m512i from) {
  if constexpr (kSource == Source::kBroadcast)
    return pair_at(reinterpret_cast<const char*>(x));
  else  // the eight pairs that sixteen channels have
    return (__m512bh)_mm512_permutexvar_epi32(
        from, _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))));
}

// One run: returns the weights of the next. Taps whose pixels no other meets come one at a time.
template <int MR, int S, Source kSource, int T>
PYCNN_INLINE const float* add_run(const float* x, Index pairs, __m512i from, const float* w,
                                  __m512 (&sum)[MR]) {
  const float* const end = w + pairs * T * kPairLanes;
  do {
    __m512bh wv[T];
#pragma GCC unroll 3
    for (int t = 0; t < T; ++t) wv[t] = (__m512bh)_mm512_loadu_si512(w + t * kPairLanes);
#pragma GCC unroll 32
    for (int j = 0; j < (MR - 1) * S + T; ++j) {
      const __m512bh pixel = pixel_at<kSource>(x + j * kInputBlock, from);
#pragma GCC unroll 3
      for (int t = 0; t < T; ++t) {
        const int i = (j - t) / S;
        if (j >= t && (j - t) % S == 0 && i < MR) sum[i] = _mm512_dpbf16_ps(sum[i], pixel, wv[t]);
      }
    }
    if constexpr (kSource == Source::kPick)
      from = _mm512_add_epi32(from, _mm512_set1_epi32(1));
    else
      x += 1;
    w += T * kPairLanes;
    // Keeps the compiler from turning each address into an induction variable of its own.
    asm volatile("" : "+r"(x), "+r"(w));
  } while (w != end);
  return w;
}

PYCNN_INLINE __m512 activated(TileActivation kind, float slope, __m512 x) {
  const __m512 zero = _mm512_setzero_ps(), six = _mm512_set1_ps(6.0f);
  switch (kind) {
    case TileActivation::kRelu:
      return at_least(zero, x);
    case TileActivation::kRelu6:
      return _mm512_min_ps(six, at_least(zero, x));  // a NaN, being second, comes through
    case TileActivation::kLeakyRelu:
      return _mm512_mask_mul_ps(x, _mm512_cmp_ps_mask(x, zero, _CMP_LT_OQ), x,
                                _mm512_set1_ps(slope));
    default:
      return x;
  }
}

template <int MR>
PYCNN_INLINE void finish(const GroupPairTiles& job, BFloat16* output, __m512 (&sum)[MR]) {
  const auto lanes = static_cast<__mmask16>((1u << job.lanes) - 1u);
  const __m512 bias = job.bias ? _mm512_maskz_loadu_ps(lanes, job.bias) : _mm512_setzero_ps();
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) sum[i] = _mm512_add_ps(sum[i], bias);
  if (job.residual) {
    const BFloat16* residual = job.residual + (output - job.output);
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i)
      sum[i] = _mm512_add_ps(
          sum[i], widened(_mm256_maskz_loadu_epi16(lanes, residual + i * job.output_column)));
  }
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) sum[i] = activated(job.activation, job.slope, sum[i]);
  if (job.function) {
    // By way of a copy: sums whose address is taken would live in memory all the time.
    alignas(64) float values[MR][kPairLanes];
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) _mm512_store_ps(values[i], sum[i]);
    job.function(values[0], values[0], MR * kPairLanes, job.slope);
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) sum[i] = _mm512_load_ps(values[i]);
  }
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i)
    _mm256_mask_storeu_epi16(output + i * job.output_column, lanes,
                             (__m256i)_mm512_cvtneps_pbh(sum[i]));
}

template <int MR, int S, Source kSource>
void tile_kernel(const GroupPairTiles& job, const float* input, BFloat16* output) {
  __m512 sum[MR];
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) sum[i] = _mm512_setzero_ps();
  alignas(64) std::int32_t first[kPairLanes] = {};
  if constexpr (kSource == Source::kPick)
    for (int lane = 0; lane < kPairLanes; ++lane)
      first[lane] = lane / (2 * static_cast<int>(job.group)) * static_cast<int>(job.group);
  const __m512i from = _mm512_load_si512(first);
  const float* w = job.weights;
  const Index* const end = job.runs + 3 * job.run_count;
  for (const Index* run = job.runs; run != end; run += 3) {
    const float* x = input + run[0];
    if (run[1] == 3)
      w = add_run<MR, S, kSource, 3>(x, run[2], from, w, sum);
    else if (run[1] == 2)
      w = add_run<MR, S, kSource, 2>(x, run[2], from, w, sum);
    else
      w = add_run<MR, S, kSource, 1>(x, run[2], from, w, sum);
  }
  finish(job, output, sum);
}

using TileKernel = void (*)(const GroupPairTiles&, const float*, BFloat16*);

// Index: pixels - 1.
template <int S, Source kSource>
struct Kernels {
  static constexpr TileKernel kList[] = {
      tile_kernel<1, S, kSource>,  tile_kernel<2, S, kSource>,  tile_kernel<3, S, kSource>,
      tile_kernel<4, S, kSource>,  tile_kernel<5, S, kSource>,  tile_kernel<6, S, kSource>,
      tile_kernel<7, S, kSource>,  tile_kernel<8, S, kSource>,  tile_kernel<9, S, kSource>,
      tile_kernel<10, S, kSource>, tile_kernel<11, S, kSource>, tile_kernel<12, S, kSource>,
      tile_kernel<13, S, kSource>, tile_kernel<14, S, kSource>,
  };
};

template <int S>
const TileKernel* kernels_of(const GroupPairTiles& job) {
  return job.group > 0 ? Kernels<S, Source::kPick>::kList : Kernels<S, Source::kBroadcast>::kList;
}

}  // namespace

void group_pair_tiles(const GroupPairTiles& job) {
  const TileKernel* const kernels = job.stride == 1 ? kernels_of<1>(job) : kernels_of<2>(job);
  const Index tiles = (job.columns + kMostPixels - 1) / kMostPixels;
  Index column = 0;
  for (Index t = 0; t < tiles; ++t) {
    const Index end = job.columns * (t + 1) / tiles;
    fetch_part(job.fetch_input, t, tiles);
    fetch_part(job.fetch_output, t, tiles);
    kernels[end - column - 1](job, job.input + column * job.stride * kInputBlock,
                              job.output + column * job.output_column);
    column = end;
  }
}

// ---- Gradient of the weights

namespace {

constexpr int kGradChannels = 4;  // of a group, whose sums of three taps stay in registers

// For each lane of a half, where channel k of its group is in two pixels of 32 channels.
PYCNN_INLINE __m512i pair_of_group(Index half, Index group, Index k) {
  alignas(64) std::uint32_t places[kPairLanes];
  for (Index lane = 0; lane < kPairLanes; ++lane) {
    const Index channel = half * kPairLanes + lane;
    const auto place = static_cast<std::uint32_t>(channel - channel % group + k);
    places[lane] = place | (place + kGroupSlice) << 16;
  }
  return _mm512_load_si512(places);
}

PYCNN_INLINE __m512i input_at(const BFloat16* x, Index pixel) {
  return _mm512_loadu_si512(x + pixel * kGroupSlice);
}
PYCNN_INLINE __m512bh two_pixels(__m512i first, __m512i from, __m512i second) {
  return (__m512bh)_mm512_permutex2var_epi16(first, from, second);
}

template <int STRIDE>
void add_channels(const GroupPairSums& job, Index half, Index k, float* to) {
  constexpr int K = kGradChannels;
  __m512i from[K];
  __m512 sum[K][3];
#pragma GCC unroll 4
  for (int i = 0; i < K; ++i) {
    from[i] = pair_of_group(half, job.group, k + i);
#pragma GCC unroll 3
    for (int t = 0; t < 3; ++t)
      sum[i][t] =
          job.accumulate ? _mm512_loadu_ps(to + (i * 3 + t) * kPairLanes) : _mm512_setzero_ps();
  }
  for (Index row = 0; row < job.rows; ++row) {
    const BFloat16* x = job.input + row * job.input_row;
    const BFloat16* y = job.grad + row * job.grad_row + half * 2 * kPairLanes;
    __m512i now = input_at(x, 1);
    __m512bh first[K];
#pragma GCC unroll 4
    for (int i = 0; i < K; ++i) first[i] = two_pixels(input_at(x, 0), from[i], now);
    for (Index pair = 0; pair < job.columns / 2; ++pair) {
      const __m512bh grad = load(y);
      if constexpr (STRIDE == 1) {  // the third tap's pixels are the next pair's first
        const __m512i next = input_at(x, 2), last = input_at(x, 3);
#pragma GCC unroll 4
        for (int i = 0; i < K; ++i) {
          sum[i][0] = _mm512_dpbf16_ps(sum[i][0], first[i], grad);
          sum[i][1] = _mm512_dpbf16_ps(sum[i][1], two_pixels(now, from[i], next), grad);
          first[i] = two_pixels(next, from[i], last);
          sum[i][2] = _mm512_dpbf16_ps(sum[i][2], first[i], grad);
        }
        now = last;
      } else {
        const __m512i middle = input_at(x, 2);
#pragma GCC unroll 4
        for (int i = 0; i < K; ++i) {
          sum[i][0] =
              _mm512_dpbf16_ps(sum[i][0], two_pixels(input_at(x, 0), from[i], middle), grad);
          sum[i][1] = _mm512_dpbf16_ps(sum[i][1],
                                       two_pixels(input_at(x, 1), from[i], input_at(x, 3)), grad);
          sum[i][2] =
              _mm512_dpbf16_ps(sum[i][2], two_pixels(middle, from[i], input_at(x, 4)), grad);
        }
      }
      x += 2 * STRIDE * kGroupSlice, y += 2 * kGroupSlice;
    }
    if (job.columns % 2 == 0) continue;
    const __m512bh grad = load(y);
#pragma GCC unroll 3
    for (int t = 0; t < 3; ++t)
#pragma GCC unroll 4
      for (int i = 0; i < K; ++i)
        sum[i][t] = _mm512_dpbf16_ps(
            sum[i][t], two_pixels(input_at(x, t), from[i], _mm512_setzero_si512()), grad);
  }
#pragma GCC unroll 4
  for (int i = 0; i < K; ++i)
#pragma GCC unroll 3
    for (int t = 0; t < 3; ++t) _mm512_storeu_ps(to + (i * 3 + t) * kPairLanes, sum[i][t]);
}

}  // namespace

void group_pair_sums(const GroupPairSums& job) {
  float* to = job.sums;
  for (Index half = 0; half < 2; ++half)
    for (Index k = 0; k < job.group; k += kGradChannels, to += kGradChannels * 3 * kPairLanes)
      if (job.stride == 1)
        add_channels<1>(job, half, k, to);
      else
        add_channels<2>(job, half, k, to);
}

void pair_group_row(const GroupPairRow& job) {
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8,
                                       39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  BFloat16* to = job.to;
  for (Index c = 0; c < job.columns; c += 2, to += 2 * kGroupSlice) {
    const BFloat16* from = job.from + c * job.channels;
    const __m512i first = _mm512_loadu_si512(from);
    const __m512i second =
        c + 1 < job.columns ? _mm512_loadu_si512(from + job.channels) : _mm512_setzero_si512();
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(first, low, second));
    _mm512_storeu_si512(to + kGroupSlice, _mm512_permutex2var_epi16(first, high, second));
  }
}

}  // namespace pycnn::cpu::avx512_bf16
