#include "backends/cpu/winograd_groups.h"

#include "backends/cpu/fetch_lines.isa.h"
#include "backends/cpu/simd.isa.h"
#include "backends/cpu/winograd_axes.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

// ---- Strips

constexpr int kTile = 4, kPoints = 6;

// What becomes of a tile: kSide pixels along an axis to six points.
struct StripOfInput {
  static constexpr int kSide = kPoints;
  PYCNN_INLINE void axis(const Vec* x, Vec* y) { input_axis<kPoints>(x, y, 1); }
};
struct StripOfGradient {
  static constexpr int kSide = kTile;
  PYCNN_INLINE void axis(const Vec* x, Vec* y) { gradient_axis<kTile, kPoints>(x, y, 1); }
};

// One vector of channels: first along the columns of the image, each once, then along the rows.
template <class Transform, bool kWhole>
PYCNN_INLINE void transform_strip(const WinogradStrip& job, Index channel) {
  constexpr int kSide = Transform::kSide;
  constexpr int kColumns = (static_cast<int>(kWinogradStrip) - 1) * kTile + kSide;
  static constexpr float kZeros[kLanes] = {};
  alignas(64) float half[kPoints][kColumns * kLanes];
  const Index row_pitch = job.columns * job.pixel_pitch;
  const Index columns = (job.tiles - 1) * kTile + kSide;
  const float* p = job.image + job.row * row_pitch + job.column * job.pixel_pitch + channel;
  for (Index c = 0; c < columns; ++c, p += job.pixel_pitch) {
    float* const to = half[0] + c * kLanes;
    Vec y[kPoints];
    const Index column = job.column + c;
    if (column < 0 || column >= job.columns) {
#pragma GCC unroll 6
      for (int i = 0; i < kPoints; ++i) y[i] = zero();
    } else {
      Vec x[kSide];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) {
        const float* from = p + i * row_pitch;
        if (!kWhole && (job.row + i < 0 || job.row + i >= job.rows)) from = kZeros;
        x[i] = load(from);
      }
      Transform::axis(x, y);
    }
#pragma GCC unroll 6
    for (int i = 0; i < kPoints; ++i) store(to + i * kColumns * kLanes, y[i]);
  }
  for (int i = 0; i < kPoints; ++i) {
    const float* from = half[i];
    float* to = job.points + i * kPoints * job.plane + channel;
    for (Index t = 0; t < job.tiles; ++t, from += kTile * kLanes, to += job.channels) {
      Vec x[kSide], y[kPoints];
#pragma GCC unroll 6
      for (int j = 0; j < kSide; ++j) x[j] = load(from + j * kLanes);
      Transform::axis(x, y);
#pragma GCC unroll 6
      for (int j = 0; j < kPoints; ++j) store(to + j * job.plane, y[j]);
    }
  }
}

template <class Transform>
void strip(const WinogradStrip& job) {
  const bool whole = job.row >= 0 && job.row + Transform::kSide <= job.rows;
  for (Index c = 0; c < job.channels; c += kLanes) {
    if (whole)
      transform_strip<Transform, true>(job, c);
    else
      transform_strip<Transform, false>(job, c);
  }
}

// ---- Products

// A few tiles, all of whose channels are read before any is written.
template <int MR, int NV>
void multiply_tiles(const WinogradGroupProducts& job, float* points) {
  constexpr int kChannels = NV * kLanes;
  const float* w = job.weights;
  Fetch input = make_fetch(job.fetch_input, job.count);
  Fetch output = make_fetch(job.fetch_output, job.count);
  for (Index point = 0; point < job.count; ++point, points += job.plane) {
    if (input.lines > 0) step(input), step(output);
    Vec sum[MR][NV];
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[i][v] = zero();
    const float* x = points;
    const float* const end = x + kChannels;
    do {
      Vec wv[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) wv[v] = load(w + v * kLanes);
#pragma GCC unroll 14
      for (int i = 0; i < MR; ++i) {
        const Vec pixel = broadcast(x[i * kChannels]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sum[i][v] = fma(pixel, wv[v], sum[i][v]);
      }
      ++x;
      w += kChannels;
    } while (x != end);
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) store(points + i * kChannels + v * kLanes, sum[i][v]);
  }
}

using TileKernel = void (*)(const WinogradGroupProducts&, float*);

// Index: tiles - 1.
constexpr TileKernel kOneVector[] = {
    multiply_tiles<1, 1>, multiply_tiles<2, 1>, multiply_tiles<3, 1>, multiply_tiles<4, 1>,
    multiply_tiles<5, 1>, multiply_tiles<6, 1>, multiply_tiles<7, 1>, multiply_tiles<8, 1>};
#if defined(__AVX512F__)
constexpr TileKernel kTwoVectors[] = {
    multiply_tiles<1, 2>, multiply_tiles<2, 2>, multiply_tiles<3, 2>, multiply_tiles<4, 2>,
    multiply_tiles<5, 2>, multiply_tiles<6, 2>, multiply_tiles<7, 2>, multiply_tiles<8, 2>};
constexpr TileKernel kFourVectors[] = {multiply_tiles<1, 4>, multiply_tiles<2, 4>,
                                       multiply_tiles<3, 4>, multiply_tiles<4, 4>,
                                       multiply_tiles<5, 4>, multiply_tiles<6, 4>};
#else
constexpr TileKernel kTwoVectors[] = {multiply_tiles<1, 2>, multiply_tiles<2, 2>,
                                      multiply_tiles<3, 2>, multiply_tiles<4, 2>,
                                      multiply_tiles<5, 2>, multiply_tiles<6, 2>};
constexpr TileKernel kFourVectors[] = {multiply_tiles<1, 4>, multiply_tiles<2, 4>,
                                       multiply_tiles<3, 4>};
#endif

template <Index kMost>
void multiply_all(const WinogradGroupProducts& job, const TileKernel (&kernels)[kMost]) {
  const Index parts = (job.tiles + kMost - 1) / kMost;
  Index tile = 0;
  for (Index part = 0; part < parts; ++part) {
    const Index end = job.tiles * (part + 1) / parts;
    kernels[end - tile - 1](job, job.points + tile * job.channels);
    tile = end;
  }
}

void products(const WinogradGroupProducts& job) {
  switch (job.channels / kLanes) {
    case 1:
      return multiply_all(job, kOneVector);
    case 2:
      return multiply_all(job, kTwoVectors);
    default:
      return multiply_all(job, kFourVectors);
  }
}

// ---- Sums

// M output channels by all vectors of read channels.
template <int M, int NV>
PYCNN_INLINE void add_channels(const WinogradGroupSums& job, const float* x, const float* y,
                               float* to) {
  constexpr int kChannels = NV * kLanes;
  Vec sum[M][NV];
#pragma GCC unroll 16
  for (int o = 0; o < M; ++o)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sum[o][v] = zero();
  const float* const end = x + job.tiles * kChannels;
  do {
    Vec xv[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) xv[v] = load(x + v * kLanes);
#pragma GCC unroll 16
    for (int o = 0; o < M; ++o) {
      const Vec grad = broadcast(y[o]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[o][v] = fma(grad, xv[v], sum[o][v]);
    }
    x += kChannels, y += kChannels;
  } while (x != end);
#pragma GCC unroll 16
  for (int o = 0; o < M; ++o)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v, to += kLanes)
      store(to, job.accumulate ? load(to) + sum[o][v] : sum[o][v]);
}

template <int NV>
void add_sums(const WinogradGroupSums& job) {
  constexpr int kChannels = NV * kLanes;
  constexpr int M = (kVectorRegisters == 32 ? 16 : 8) / NV;
  Fetch input = make_fetch(job.fetch_input, job.count);
  Fetch grad = make_fetch(job.fetch_grad, job.count);
  for (Index point = 0; point < job.count; ++point) {
    if (input.lines > 0) step(input), step(grad);
    const float* const x = job.inputs + point * job.plane;
    const float* const y = job.grads + point * job.plane;
    for (Index o = 0; o < kChannels; o += M)
      add_channels<M, NV>(job, x, y + o, job.sums + (point * kChannels + o) * kChannels);
  }
}

void sums(const WinogradGroupSums& job) {
  switch (job.channels / kLanes) {
    case 1:
      return add_sums<1>(job);
    case 2:
      return add_sums<2>(job);
    default:
      return add_sums<4>(job);
  }
}

}  // namespace

const WinogradGroupSet kWinogradGroups = {strip<StripOfInput>, strip<StripOfGradient>, products,
                                          sums};

}  // namespace pycnn::cpu::PYCNN_ISA
