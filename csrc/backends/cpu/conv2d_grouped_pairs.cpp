// The tiles of bfloat16 of conv2d_grouped_tiles.h as the formula says, for any processor: what the
// unit is compared with.
#include <algorithm>
#include <cstring>

#include "backends/cpu/conv2d_grouped_tiles.h"
#include "core/half.h"

namespace pycnn::cpu::portable {
namespace {

// Sum of both products of two pairs.
float product(const float* pair, const float* weights) {
  std::uint32_t x, w;
  std::memcpy(&x, pair, sizeof x), std::memcpy(&w, weights, sizeof w);
  auto low = [](std::uint32_t bits) {
    return float_from_bfloat16(static_cast<std::uint16_t>(bits & 0xFFFFu));
  };
  auto high = [](std::uint32_t bits) {
    return float_from_bfloat16(static_cast<std::uint16_t>(bits >> 16));
  };
  return low(x) * low(w) + high(x) * high(w);
}

float activated(TileActivation kind, float x, float slope) {
  switch (kind) {
    case TileActivation::kRelu:
      return x < 0.0f ? 0.0f : x;
    case TileActivation::kRelu6:
      return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
    case TileActivation::kLeakyRelu:
      return x < 0.0f ? slope * x : x;
    default:
      return x;
  }
}

}  // namespace

void group_pair_tiles(const GroupPairTiles& job) {
  for (Index column = 0; column < job.columns; ++column) {
    const Index at = column * job.output_column;
    for (Index lane = 0; lane < job.lanes; ++lane) {
      const Index first = job.group > 0 ? lane / (2 * job.group) * job.group : 0;
      const float* weights = job.weights + lane;
      float sum = 0;
      for (Index r = 0; r < job.run_count; ++r) {
        const Index *run = job.runs + 3 * r, taps = run[1];
        const float* pixel = job.input + run[0] + column * job.stride * kInputBlock + first;
        for (Index k = 0; k < run[2]; ++k)
          for (Index t = 0; t < taps; ++t, weights += kPairLanes)
            sum += product(pixel + t * kInputBlock + k, weights);
      }
      if (job.bias) sum += job.bias[lane];
      if (job.residual) sum += float_from_bfloat16(job.residual[at + lane].bits);
      sum = activated(job.activation, sum, job.slope);
      if (job.function) job.function(&sum, &sum, 1, job.slope);
      job.output[at + lane] = {bfloat16_from_float(sum)};
    }
  }
}

void group_pair_sums(const GroupPairSums& job) {
  for (Index half = 0; half < 2; ++half)
    for (Index k = 0; k < job.group; ++k)
      for (Index t = 0; t < 3; ++t)
        for (Index lane = 0; lane < kPairLanes; ++lane) {
          const Index channel = half * kPairLanes + lane;
          const Index read = channel - channel % job.group + k;
          float& sum = job.sums[((half * job.group + k) * 3 + t) * kPairLanes + lane];
          if (!job.accumulate) sum = 0;
          for (Index row = 0; row < job.rows; ++row)
            for (Index c = 0; c < job.columns; ++c) {
              const BFloat16 x =
                  job.input[row * job.input_row + (c * job.stride + t) * kGroupSlice + read];
              const BFloat16 y =
                  job.grad[row * job.grad_row + (c / 2 * kGroupSlice + channel) * 2 + c % 2];
              sum += float_from_bfloat16(x.bits) * float_from_bfloat16(y.bits);
            }
        }
}

void pair_group_row(const GroupPairRow& job) {
  for (Index c = 0; c < job.columns + job.columns % 2; ++c)
    for (Index i = 0; i < kGroupSlice; ++i)
      job.to[(c / 2 * kGroupSlice + i) * 2 + c % 2] =
          c < job.columns ? job.from[c * job.channels + i] : BFloat16{};
}

}  // namespace pycnn::cpu::portable
