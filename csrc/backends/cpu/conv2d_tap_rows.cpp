// The loops of conv2d_tap_rows.h as the formulas say, for any processor.
#include "backends/cpu/conv2d_tap_rows.h"

#include <algorithm>

#include "core/half.h"

namespace pycnn::cpu::portable {
namespace {

constexpr std::int64_t kTapColumns = 32;

void tap_rows(const TapRows& job) {
  for (std::int64_t r = 0; r < job.rows; ++r)
    for (std::int64_t t = 0; t < job.taps; ++t) {
      BFloat16* to = job.to + (r * job.taps + t) * job.steps * kTapStep;
      std::fill_n(to, job.steps * kTapStep, BFloat16{});
      const std::int64_t first =
          job.places[t] / job.plane_pitch + job.places[t] % job.plane_pitch * job.step;
      for (std::int64_t x = 0; x < job.columns; ++x) {
        const std::int64_t e = x * job.step + first;
        const std::int64_t at = x / (2 * job.pairs) * kTapStep + x % (2 * job.pairs);
        if (e >= job.begin && e < job.end) to[at] = job.from[r * job.from_row + e];
      }
    }
}

void tap_row_sums(const TapRowSums& job) {
  auto value = [](BFloat16 x) { return float_from_bfloat16(x.bits); };
  for (std::int64_t t = 0; t < job.taps; ++t) {
    float* sums = job.sums + t * kTapColumns;
    if (!job.accumulate) std::fill_n(sums, kTapColumns, 0.0f);
    for (std::int64_t r = 0; r < job.rows; ++r)
      for (std::int64_t p = 0; p < job.steps * job.pairs; ++p) {
        const BFloat16* x = job.input + r * job.input_row + t * job.input_tap +
                            p / job.pairs * kTapStep + p % job.pairs * 2;
        const BFloat16* grad = job.grad + r * job.grad_row + 2 * p * kTapColumns;
        for (std::int64_t c = 0; c < job.channels; ++c)
          sums[c] += value(x[0]) * value(grad[2 * c]) + value(x[1]) * value(grad[2 * c + 1]);
      }
  }
}

}  // namespace

const TapRowLoops kTapRowLoops = {tap_rows, tap_row_sums};

}  // namespace pycnn::cpu::portable
