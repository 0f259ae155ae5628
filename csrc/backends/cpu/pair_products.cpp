// The loops of pair_products.h as the formulas say, for any processor: what the units are compared
// with, and what lets packing and planning be tested where there is none.
#include "backends/cpu/pair_products.h"

#include <algorithm>

#include "core/half.h"

namespace pycnn::cpu::portable {
namespace {

float widened(BFloat16 x) { return float_from_bfloat16(x.bits); }
BFloat16 rounded(float x) { return {bfloat16_from_float(x)}; }

// The left operand: what leads from row to row and from pair to pair.
struct LeftRows {
  Index row, pair;
  bool odd = false;  // the last pair begins one element earlier
};

// sums[row][column] += sum over pairs of one half of each side.
void multiply(const BFloat16* a, const LeftRows& left, const BFloat16* b, Index pairs, float* sums,
              Index sums_pitch = kPairBlock) {
  for (Index row = 0; row < kPairRows; ++row, a += left.row, sums += sums_pitch)
    for (Index pair = 0; pair < pairs; ++pair) {
      const BFloat16* x = a + left.pair * pair - (left.odd && pair == pairs - 1 ? 1 : 0);
      const float first = widened(x[0]), second = widened(x[1]);
      const BFloat16* weights = b + pair * kPairBlock;
      for (Index c = 0; c < 16; ++c)
        sums[c] += first * widened(weights[2 * c]) + second * widened(weights[2 * c + 1]);
    }
}

void finish(const PairTiles& job, const Index* rows, Index block, float* sums) {
  const Index first = block * kPairBlock, count = std::min(kPairBlock, job.channels - first);
  for (Index row = 0; row < kPairBlock; ++row, sums += kPairBlock) {
    if (rows[row] < 0) continue;
    const Index at = rows[row] + first;
    if (job.residual)
      for (Index c = 0; c < count; ++c) sums[c] += widened(job.residual[at + c]);
    if (job.activation) job.activation(sums, sums, count, job.slope);
    for (Index c = 0; c < count; ++c) {
      const bool closed = job.mask && widened(job.mask[at + c]) <= 0;
      job.output[at + c] = rounded(closed || (job.relu && sums[c] < 0) ? 0.0f : sums[c]);
    }
  }
}

void run_tile(const PairTiles& job, Index tile, Index block) {
  float sums[kPairBlock * kPairBlock];
  constexpr Index kCells = kPairBlock * kPairBlock;
  float* const values =
      job.values ? job.values + ((block - job.block_begin) * job.tiles + tile) * kCells : nullptr;
  if (job.first_part)
    for (Index row = 0; row < kPairBlock; ++row)
      std::copy_n(job.bias + block * kPairBlock, kPairBlock, sums + row * kPairBlock);
  else
    std::copy_n(values, kCells, sums);
  const Index half = job.pairs * kPairBlock;
  const BFloat16* weights = job.weights + block * job.step_count * 2 * half;
  const Index* steps = job.steps + block * job.step_pitch;
  for (Index s = 0; s < job.step_count; ++s, weights += 2 * half)
    for (Index h = 0; h < 2; ++h) {
      const BFloat16* input = job.input + job.halves[2 * tile + h] + steps[s];
      float* to = sums + h * kPairRows * kPairBlock;
      const LeftRows left{job.input_row, 2, job.odd};
      multiply(input, left, weights, job.pairs, to);
      multiply(input, left, weights + half, job.pairs, to + 16);
    }
  if (job.last_part)
    finish(job, job.rows + tile * kPairBlock, block, sums);
  else
    std::copy_n(sums, kCells, values);
}

void tiles(const PairTiles& job) {
  for (Index tile = 0; tile < job.tiles; ++tile)
    for (Index block = job.block_begin; block < job.block_end; ++block) run_tile(job, tile, block);
}

void sums(const PairSums& job) {
  for (Index row = 0; row < job.row_blocks; ++row) {
    float* to = job.sums + row * job.sums_row;
    for (Index column = 0; column < job.column_blocks; ++column)
      for (Index tap = 0; tap < job.tap_count; ++tap, to += job.sums_block) {
        if (!job.accumulate)
          for (Index r = 0; r < kPairBlock; ++r)
            std::fill_n(to + r * job.sums_pitch, kPairBlock, 0.0f);
        for (Index quarter = 0; quarter < 4; ++quarter) {
          const BFloat16* a = job.a + (2 * row + quarter / 2) * job.a_half;
          const BFloat16* b = job.b + (2 * column + quarter % 2) * job.b_half + job.taps[tap];
          for (Index s = 0; s < job.steps; ++s)
            multiply(a + s * kPairHalf, {2, kPairBlock}, b + s * kPairHalf, job.pairs,
                     to + quarter / 2 * kPairRows * job.sums_pitch + quarter % 2 * 16,
                     job.sums_pitch);
        }
      }
  }
}

BFloat16 element(const PixelPairs& job, Index pixel, Index channel) {
  const BFloat16* from = job.pixels[pixel];
  return from && channel < job.channels ? from[job.first_channel + channel] : BFloat16{};
}

void interleave(const PixelPairs& job) {
  for (Index group = 0; group * 16 < job.channels; ++group) {
    BFloat16* to = job.to + group * job.group_pitch;
    for (Index pair = 0; pair < job.pairs; ++pair)
      for (Index c = 0; c < 16; ++c)
        for (Index i = 0; i < 2; ++i) *to++ = element(job, 2 * pair + i, group * 16 + c);
  }
}

void pack(const PairWeights& job) {
  for (Index pair = 0; pair < job.pairs; ++pair)
    for (Index c = 0; c < 16; ++c)
      for (Index i = 0; i < 2; ++i) {
        const Index e = 2 * pair + i;
        const bool inside = c < job.columns && e < job.elements;
        job.to[(pair * 16 + c) * 2 + i] =
            inside ? rounded(job.from[c * job.column_pitch + e * job.element_pitch]) : BFloat16{};
      }
}

void spread(const PixelSpread& job) {
  for (Index row = 0; row < job.rows; ++row)
    for (Index pixel = 0; pixel < job.pixels; ++pixel) {
      const BFloat16* from = job.from + row * job.from_row + pixel * job.channels;
      BFloat16* to = job.to + row * job.to_row + pixel * (job.channels + 1);
      *std::copy_n(from, job.channels, to) = BFloat16{};
    }
}

}  // namespace

const PairUnit kPairUnit = {
    tiles, sums, interleave, interleave, pack, spread, &baseline::kActivation, false};

}  // namespace pycnn::cpu::portable
