// The loops of conv2d_row_pairs.h as the formulas say, for any processor.
#include "backends/cpu/conv2d_row_pairs.h"

#include <algorithm>

#include "core/half.h"

namespace pycnn::cpu::portable {
namespace {

constexpr std::int64_t kRowPairBlock = 32;

float value(BFloat16 x) { return float_from_bfloat16(x.bits); }

void distant_pairs(const DistantPairs& job) {
  for (std::int64_t e = 0; e < job.count; ++e) {
    job.to[2 * e] = job.from[e];
    job.to[2 * e + 1] = job.from[e + job.distance];
  }
}

void grad_row_pairs(const GradRowPairs& job) {
  for (std::int64_t first = 0; first < job.channels; first += kRowPairBlock) {
    BFloat16* to = job.to + first / kRowPairBlock * job.block_pitch;
    const std::int64_t channels = std::min(kRowPairBlock, job.channels - first);
    for (std::int64_t column = 0; column < job.columns; column += 2, to += 2 * kRowPairBlock) {
      std::fill_n(to, 2 * kRowPairBlock, BFloat16{});
      for (std::int64_t i = 0; i < std::min<std::int64_t>(2, job.columns - column); ++i)
        for (std::int64_t c = 0; c < channels; ++c) {
          const BFloat16 x = job.from[(column + i) * job.channels + first + c];
          to[2 * c + i] = x;
          if (job.bias) job.bias[first + c] += value(x);
        }
    }
  }
}

void row_pair_sums(const RowPairSums& job) {
  if (!job.accumulate) std::fill_n(job.sums, job.elements * kRowPairBlock, 0.0f);
  for (std::int64_t row = 0; row < job.rows; ++row)
    for (std::int64_t pair = 0; pair < job.pairs; ++pair)
      for (std::int64_t e = 0; e < job.elements; ++e) {
        const BFloat16* x = job.input + row * job.input_row + 2 * (pair * job.step + e);
        const BFloat16* grad = job.grad + row * job.grad_row + 2 * pair * kRowPairBlock;
        for (std::int64_t c = 0; c < kRowPairBlock; ++c)
          job.sums[e * kRowPairBlock + c] +=
              value(x[0]) * value(grad[2 * c]) + value(x[1]) * value(grad[2 * c + 1]);
      }
}

}  // namespace

const RowPairLoops kRowPairLoops = {distant_pairs, grad_row_pairs, row_pair_sums};

}  // namespace pycnn::cpu::portable
