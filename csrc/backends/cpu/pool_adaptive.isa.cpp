#include "backends/cpu/pool.isa.h"

// Average pooling to a fixed output size. A window's rows are summed from left to right and their
// sums added from top to bottom.
namespace pycnn::cpu::PYCNN_ISA {

PYCNN_INLINE Vec sum_rows(const float* first, Index row_step, Index rows, Index step, Index columns,
                          int lanes) {
  Vec total = zero();
  for (Index i = 0; i < rows; ++i, first += row_step) {
    const float* cell = first;
    Vec sum = zero();
    for (Index j = 0; j < columns; ++j, cell += step) sum += load_lanes(cell, lanes);
    total += sum;
  }
  return total;
}

void adaptive_avg_pool_row(const AdaptivePoolRow& r) noexcept {
  const Index row_step = r.input_width * r.channels;
  float* output = r.output;
  for (Index ow = 0; ow < r.output_width; ++ow, output += r.channels) {
    const Index begin = ow * r.input_width / r.output_width;
    const Index end = ((ow + 1) * r.input_width + r.output_width - 1) / r.output_width;
    const float* const first = r.input + begin * r.channels;
    const Vec cells = broadcast(static_cast<float>(r.rows * (end - begin)));
    Index c = 0;
    for (; c + kLanes <= r.channels; c += kLanes)
      store(output + c,
            sum_rows(first + c, row_step, r.rows, r.channels, end - begin, kLanes) / cells);
    if (const int rest = static_cast<int>(r.channels - c))
      store_partial(output + c,
                    sum_rows(first + c, row_step, r.rows, r.channels, end - begin, rest) / cells,
                    rest);
  }
}

PYCNN_INLINE Vec gather_windows(const AdaptivePoolGradRow& r, Index begin, Index end, Index c,
                                int lanes) {
  Vec sum = zero();
  for (Index oh = 0; oh < r.rows; ++oh) {
    const float* const grad = r.grad_output + oh * r.output_width * r.channels + c;
    const float* const scales = r.scales + oh * r.output_width;
    for (Index ow = begin; ow < end; ++ow)
      sum += load_lanes(grad + ow * r.channels, lanes) * broadcast(scales[ow]);
  }
  return sum;
}

void adaptive_avg_pool_grad_row(const AdaptivePoolGradRow& r) noexcept {
  float* grad_input = r.grad_input;
  for (Index iw = 0; iw < r.input_width; ++iw, grad_input += r.channels) {
    const Index begin = iw * r.output_width / r.input_width;
    const Index end = ((iw + 1) * r.output_width - 1) / r.input_width + 1;
    Index c = 0;
    for (; c + kLanes <= r.channels; c += kLanes)
      store(grad_input + c, gather_windows(r, begin, end, c, kLanes));
    if (const int rest = static_cast<int>(r.channels - c))
      store_partial(grad_input + c, gather_windows(r, begin, end, c, rest), rest);
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
