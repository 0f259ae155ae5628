// The loops of winograd_pairs.h as the formulas say, for any processor.
#include "backends/cpu/winograd_pairs.h"

#include <algorithm>

#include "core/ceil_div.h"
#include "core/half.h"

namespace pycnn::cpu::portable {
namespace {

float value_of(BFloat16 x) { return float_from_bfloat16(x.bits); }
BFloat16 nearest(float x) { return {bfloat16_from_float(x)}; }

void input_axis(const float* x, float* y, Index step) {
  y[0] = x[0] - x[2 * step];
  y[step] = x[step] + x[2 * step];
  y[2 * step] = x[2 * step] - x[step];
  y[3 * step] = x[step] - x[3 * step];
}

void gradient_axis(const float* x, float* y, Index step) {
  y[0] = x[0];
  y[step] = x[0] + x[step];
  y[2 * step] = x[0] - x[step];
  y[3 * step] = 0.0f - x[step];
}

void input(const PairTileInput& job) {
  for (Index c = 0; c < ceil_div(job.channels, kPairStep) * kPairStep; ++c) {
    float x[kPairPoints], half[kPairPoints];
    for (Index p = 0; p < kPairPoints; ++p) {
      const Index row = job.row + p / kPairTileSide, column = job.column + p % kPairTileSide;
      const bool inside = row >= 0 && row < job.rows && column >= 0 && column < job.columns;
      x[p] = inside && c < job.channels
                 ? value_of(job.image[(row * job.columns + column) * job.pixel_pitch + c])
                 : 0.0f;
    }
    for (Index i = 0; i < kPairTileSide; ++i)
      input_axis(x + i * kPairTileSide, half + i * kPairTileSide, 1);
    for (Index j = 0; j < kPairTileSide; ++j) input_axis(half + j, x + j, kPairTileSide);
    BFloat16* to = job.points + c / kPairStep * kPairStep + place_in_step(c % kPairStep);
    for (Index p = 0; p < kPairPoints; ++p) to[p * job.plane] = nearest(x[p]);
  }
}

// sums[c] += sum over channels, one window's share of one tile and point.
void add_products(const BFloat16* from, const BFloat16* weights, Index steps, float* sums) {
  for (Index c = 0; c < kPairBlock; ++c) {
    const BFloat16* own = weights + c / 16 * kPairHalf + c % 16 * 2;
    for (Index e = 0; e < steps * kPairStep; ++e)
      sums[c] +=
          value_of(from[e]) *
          value_of(own[e / kPairStep * 2 * kPairHalf + e % kPairStep / 2 * kPairBlock + e % 2]);
  }
}

void products(const PairTileProducts& job) {
  for (Index p = 0; p < kPairPoints; ++p)
    for (Index t = 0; t < job.tiles; ++t) {
      float* sums = job.sums + p * job.sum_plane + t * kPairBlock;
      std::fill_n(sums, kPairBlock, 0.0f);
      add_products(job.points + p * job.plane + t * job.tile_pitch,
                   job.weights + p * job.weight_plane, job.steps, sums);
    }
}

void shifted_products(const ShiftedTileProducts& job) {
  for (Index p = 0; p < kPairPoints; ++p)
    for (Index t = 0; t < job.rows * job.columns; ++t) {
      const Index row = t / job.columns, column = t % job.columns;
      float* sums = job.sums + p * job.sum_plane + row * job.sum_row + column * kPairBlock;
      std::fill_n(sums, kPairBlock, 0.0f);
      for (Index down = 0; down < 2; ++down)
        for (Index right = 0; right < 2; ++right) {
          if (has_no_point(down, p / kPairTileSide) || has_no_point(right, p % kPairTileSide))
            continue;
          add_products(job.points + p * job.plane + (row + down) * job.row_pitch +
                           (column + right) * job.tile_pitch,
                       job.weights + (2 * down + right) * job.window_weights + p * job.weight_plane,
                       job.steps, sums);
        }
    }
}

void output_axis(const float* x, float* y, Index step) {
  y[0] = x[0] + (x[step] + x[2 * step]);
  y[1] = (x[step] - x[2 * step]) - x[3 * step];
}

void output(const PairTileOutput& job) {
  float out[4][kPairBlock];
  for (Index c = 0; c < kPairBlock; ++c) {
    float x[kPairPoints], half[2 * kPairTileSide];
    for (Index p = 0; p < kPairPoints; ++p) x[p] = job.sums[p * job.plane + c];
    for (Index i = 0; i < kPairTileSide; ++i) output_axis(x + i * kPairTileSide, half + 2 * i, 1);
    for (Index j = 0; j < 2; ++j) {
      float y[2];
      output_axis(half + j, y, 2);
      out[j][c] = y[0] + job.bias[c], out[2 + j][c] = y[1] + job.bias[c];
    }
  }
  for (Index i = 0; i < job.rows; ++i)
    for (Index j = 0; j < job.columns; ++j) {
      float* sums = out[2 * i + j];
      const Index at = i * job.row_pitch + j * job.pixel_pitch;
      if (job.residual)
        for (Index c = 0; c < job.channels; ++c) sums[c] += value_of(job.residual[at + c]);
      if (job.activation) job.activation(sums, sums, job.channels, job.slope);
      for (Index c = 0; c < job.channels; ++c) {
        const bool closed = job.mask && value_of(job.mask[at + c]) <= 0;
        job.output[at + c] = nearest(closed || (job.relu && sums[c] < 0) ? 0.0f : sums[c]);
      }
    }
}

// Channel c of the pixels of a tile's side x side, zeros where there are none.
void pixels_of(const TilePairs& job, const PairTilePlace& tile, Index side, Index c, float* x) {
  for (Index p = 0; p < side * side; ++p) {
    const Index row = tile.row + p / side, column = tile.column + p % side;
    const bool inside = tile.image && c < job.channels && row >= 0 && row < job.rows &&
                        column >= 0 && column < job.columns;
    x[p] = inside ? value_of(tile.image[(row * job.columns + column) * job.pixel_pitch + c]) : 0.0f;
  }
}

// transform(x, c): from pixels to points, in place.
template <class F>
void put_pairs(const TilePairs& job, Index side, F&& transform) {
  for (Index t = 0; t < 2 * job.pairs; ++t)
    for (Index c = 0; c < ceil_div(job.channels, kPairStep) * kPairStep; ++c) {
      float x[kPairPoints];
      pixels_of(job, job.tiles[t], side, c, x);
      transform(x, c);
      BFloat16* to =
          job.points + c / 16 * job.group_pitch + t / 2 * kPairBlock + c % 16 * 2 + t % 2;
      for (Index p = 0; p < kPairPoints; ++p) to[p * job.plane] = nearest(x[p]);
    }
}

void input_pairs(const TilePairs& job) {
  put_pairs(job, kPairTileSide, [](float* x, Index) {
    float half[kPairPoints];
    for (Index i = 0; i < kPairTileSide; ++i)
      input_axis(x + i * kPairTileSide, half + i * kPairTileSide, 1);
    for (Index j = 0; j < kPairTileSide; ++j) input_axis(half + j, x + j, kPairTileSide);
  });
}

void gradient_pairs(const TilePairs& job) {
  put_pairs(job, 2, [&job](float* x, Index c) {
    float half[kPairPoints];
    for (Index i = 0; i < 2; ++i) gradient_axis(x + i * 2, half + i * kPairTileSide, 1);
    if (job.sums)
      job.sums[c / kPairStep * kPairStep + place_in_step(c % kPairStep)] +=
          half[1] + half[kPairTileSide + 1];
    for (Index j = 0; j < kPairTileSide; ++j) gradient_axis(half + j, x + j, kPairTileSide);
  });
}

}  // namespace

const PairTileUnit kPairTiles = {input,       products,       shifted_products,      output,
                                 input_pairs, gradient_pairs, &baseline::kActivation};

}  // namespace pycnn::cpu::portable
