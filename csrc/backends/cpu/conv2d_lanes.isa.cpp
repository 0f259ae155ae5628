#include "backends/cpu/conv2d_lanes_tiles.h"
#include "backends/cpu/gemm_tile.isa.h"
#include "backends/cpu/take_lanes.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

struct Tile {
  const float* input;
  const float* weights;
  float* output;
  Index lane;        // of the pixel: where this group of vectors starts
  Index last_valid;  // of the last pixel of the tile
};

// Valid lanes of vector v of pixel i.
template <int MR>
PYCNN_INLINE int valid_lanes(const LaneTiles& job, const Tile& tile, int i, int v) {
  const Index left = (i + 1 < MR ? job.valid : tile.last_valid) - tile.lane - v * kLanes;
  return static_cast<int>(left < 0 ? 0 : left > kLanes ? kLanes : left);
}

template <int MR, int NV>
PYCNN_INLINE void finish(const LaneTiles& job, const Tile& tile, Vec (&sum)[MR][NV]) {
#pragma GCC unroll 3
  for (int v = 0; v < NV; ++v) {
    const Vec bias = job.bias ? load(job.bias + tile.lane + v * kLanes) : zero();
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) sum[i][v] = sum[i][v] + bias;
  }
  if (job.residual) {
    const float* residual = job.residual + (tile.output - job.output);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 3
      for (int v = 0; v < NV; ++v)
        sum[i][v] = sum[i][v] + load_partial(residual + i * job.output_column + v * kLanes,
                                             valid_lanes<MR>(job, tile, i, v));
  }
  activate(job.activation, job.slope, sum);
  if (job.valid - tile.lane >= NV * kLanes && tile.last_valid - tile.lane >= NV * kLanes) {
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 3
      for (int v = 0; v < NV; ++v)
        store(tile.output + i * job.output_column + v * kLanes, sum[i][v]);
    return;
  }
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < NV; ++v)
      store_partial(tile.output + i * job.output_column + v * kLanes, sum[i][v],
                    valid_lanes<MR>(job, tile, i, v));
}

template <int MR, int NV>
void tile_kernel(const LaneTiles& job, const Tile& tile) {
  Vec sum[MR][NV];
#pragma GCC unroll 12
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < NV; ++v) sum[i][v] = zero();
  const Index step = job.input_column, step3 = 3 * step, step5 = 5 * step;
  const float* w = tile.weights;
  for (Index t = 0; t < job.tap_count; ++t, w += job.weight_pitch) {
    const float* x = tile.input + job.taps[t];
    Vec wv[NV];
#pragma GCC unroll 3
    for (int v = 0; v < NV; ++v) wv[v] = load(w + v * kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < MR; ++i) {
      const int j = i % 6;
      const float* at = (i < 6 ? x : x + 2 * step3) + (j == 3 ? step3 : j == 5 ? step5 : j * step);
#pragma GCC unroll 3
      for (int v = 0; v < NV; ++v) sum[i][v] = fma(load(at + v * kLanes), wv[v], sum[i][v]);
    }
  }
  finish(job, tile, sum);
}

using TileKernel = void (*)(const LaneTiles&, const Tile&);

// [vectors - 1][pixels - 1]
constexpr int kMaxVectors = 3;
constexpr int kMaxPixels[kMaxVectors] = {12, 6, 4};
constexpr TileKernel kKernels[kMaxVectors][12] = {
    {tile_kernel<1, 1>, tile_kernel<2, 1>, tile_kernel<3, 1>, tile_kernel<4, 1>, tile_kernel<5, 1>,
     tile_kernel<6, 1>, tile_kernel<7, 1>, tile_kernel<8, 1>, tile_kernel<9, 1>, tile_kernel<10, 1>,
     tile_kernel<11, 1>, tile_kernel<12, 1>},
    {tile_kernel<1, 2>, tile_kernel<2, 2>, tile_kernel<3, 2>, tile_kernel<4, 2>, tile_kernel<5, 2>,
     tile_kernel<6, 2>},
    {tile_kernel<1, 3>, tile_kernel<2, 3>, tile_kernel<3, 3>, tile_kernel<4, 3>}};

// What lies beyond the end is of no use to anybody, but must not be read.
PYCNN_INLINE Vec load_before(const float* p, const float* end) {
  const Index left = end - p;
  if (left >= kLanes) return load(p);
  return left > 0 ? load_partial(p, static_cast<int>(left)) : zero();
}

// Lanes of a vector take neighbouring groups' channel k.
PYCNN_INLINE IVec group_lanes(const SpreadRow& job, Index k) {
  IVec lanes;
  for (int i = 0; i < kLanes; ++i)
    lanes[i] = static_cast<std::int32_t>(i / job.group_outputs * job.group_inputs + k);
  return lanes;
}

void spread_groups(const SpreadRow& job) {
  const Index block_inputs = kLanes / job.group_outputs * job.group_inputs;
  for (Index k = 0; k < job.group_inputs; ++k) {
    const IVec lanes = group_lanes(job, k);
    float* to = job.to + k * job.plane_pitch;
    for (Index column = 0; column < job.columns; ++column, to += job.outputs) {
      const float* from = job.from + column * job.inputs;
      for (Index o = 0; o < job.outputs; o += kLanes, from += block_inputs) {
        store(to + o, take_lanes(load_before(from, job.end), lanes));
      }
    }
  }
}

void spread_one(const SpreadRow& job) {
  float* to = job.to;
  for (Index column = 0; column < job.columns; ++column, to += job.outputs) {
    const Vec x = broadcast(job.from[column]);
    for (Index o = 0; o < job.outputs; o += kLanes) store(to + o, x);
  }
}

// Depthwise: pixels as they are.
void copy(const SpreadRow& job) {
  for (Index column = 0; column < job.columns; ++column)
    for (Index o = 0; o < job.outputs; o += kLanes) {
      store(job.to + column * job.outputs + o,
            load_before(job.from + column * job.inputs + o, job.end));
    }
}

void spread_any(const SpreadRow& job) {
  for (Index k = 0; k < job.group_inputs; ++k) {
    float* to = job.to + k * job.plane_pitch;
    for (Index column = 0; column < job.columns; ++column) {
      const float* from = job.from + column * job.inputs + k;
      for (Index o = 0; o < job.outputs; o += job.group_outputs, from += job.group_inputs)
        for (Index i = 0; i < job.group_outputs; ++i) *to++ = *from;
    }
  }
}

}  // namespace

void spread_row(const SpreadRow& job) {
  if (job.group_inputs == 1 && job.group_outputs == 1)
    copy(job);
  else if (job.inputs == 1)
    spread_one(job);
  else if (kLanes % job.group_outputs == 0 && job.group_inputs <= job.group_outputs)
    spread_groups(job);
  else
    spread_any(job);
}

void lane_tiles(const LaneTiles& job) {
  for (Index vector = 0; vector < job.vectors;) {
    // Three vectors at a time only where that is all there is: more pixels fit beside two.
    const Index left = job.vectors - vector;
    const int count = static_cast<int>(left == 3 ? 3 : left >= 2 ? 2 : 1);
    const Index most = kMaxPixels[count - 1];
    const Index tiles = (job.columns + most - 1) / most;
    Index column = 0;
    for (Index t = 0; t < tiles; ++t) {
      const Index end = job.columns * (t + 1) / tiles;
      Tile tile;
      tile.lane = vector * kLanes;
      tile.input = job.input + column * job.input_column + tile.lane;
      tile.weights = job.weights + tile.lane;
      tile.output = job.output + column * job.output_column + tile.lane;
      tile.last_valid = end == job.columns ? job.last_valid : job.valid;
      kKernels[count - 1][end - column - 1](job, tile);
      column = end;
    }
    vector += count;
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
