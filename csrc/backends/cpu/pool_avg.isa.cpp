#include "backends/cpu/pool.isa.h"

// Average pooling: cells are summed in row-major order, then divided once.
namespace pycnn::cpu::PYCNN_ISA {

template <int KH, int KW>
PYCNN_INLINE Vec sum_window(const Window& w, Index c, int lanes) {
  Vec sum = zero();
  for (Index kh = 0; kh < taps_h<KH, KW>(w); ++kh) {
    const float* const row = w.first + kh * w.step_h + c;
    for (Index kw = 0; kw < taps_w<KH, KW>(w); ++kw) sum += load_lanes(row + kw * w.step_w, lanes);
  }
  return sum;
}

template <int KH, int KW>
PYCNN_INLINE void mean_pixel(const PoolRow& r, const Window& w, Index ow) {
  const Index channels = r.columns->channels;
  const float* const last = last_tap<KH, KW>(w);
  float* const output = r.output + ow * r.columns->output_pitch;
  const Vec divisor = broadcast(r.divisors[ow]);
  for (Index c = 0; c < channels; c += kLanes) {
    if (c + kLanes <= channels ||
        (r.input_end - last >= c + kLanes && r.output_end - output >= c + kLanes)) {
      store(output + c, sum_window<KH, KW>(w, c, kLanes) / divisor);
    } else {
      const int lanes = static_cast<int>(channels - c);
      store_partial(output + c, sum_window<KH, KW>(w, c, lanes) / divisor, lanes);
    }
  }
}

static void mean_edge(const PoolRow& r, Index begin, Index end) noexcept {
  for (Index ow = begin; ow < end; ++ow) {
    const Window w = clipped_window(*r.columns, r.input, r.taps, r.row_step, ow);
    if (w.taps_h > 0 && w.taps_w > 0)
      mean_pixel<0, 0>(r, w, ow);
    else
      fill(r.output + ow * r.columns->output_pitch, r.columns->channels, 0.0f);
  }
}

template <int KH, int KW>
PYCNN_INLINE void mean_interior(const PoolRow& r) {
  const PoolColumns& g = *r.columns;
  for (Index ow = g.interior_begin; ow < g.interior_end; ++ow)
    mean_pixel<KH, KW>(r, interior_window(g, r.input, r.taps, r.row_step, ow), ow);
}

void avg_pool_row(const PoolRow& r) noexcept {
  const PoolColumns& g = *r.columns;
  if (r.taps <= 0) return mean_edge(r, 0, g.output_width);
  mean_edge(r, 0, g.interior_begin);
  if (r.taps == 2 && g.kernel == 2)
    mean_interior<2, 2>(r);
  else if (r.taps == 3 && g.kernel == 3)
    mean_interior<3, 3>(r);
  else
    mean_interior<0, 0>(r);
  mean_edge(r, g.interior_end, g.output_width);
}

PYCNN_INLINE Vec sum_gradients(const AvgPoolGradRow& r, Index begin, Index end, Index c,
                               int lanes) {
  const PoolColumns& g = *r.columns;
  Vec sum = zero();
  for (Index oh = r.first_row; oh < r.end_row; ++oh) {
    const float* const grad = r.grad_output + oh * g.output_width * g.output_pitch + c;
    const float* const scales = r.scales + oh * g.output_width;
    for (Index ow = begin; ow < end; ++ow)
      sum += load_lanes(grad + ow * g.output_pitch, lanes) * broadcast(scales[ow]);
  }
  return sum;
}

PYCNN_INLINE void scale_cell(const float* grad, float scale, float* cell, Index channels,
                             Index room) {
  const Vec factor = broadcast(scale);
  for (Index c = 0; c < channels; c += kLanes) {
    if (c + kLanes <= channels || c + kLanes <= room) {
      store(cell + c, load(grad + c) * factor);
    } else {
      const int lanes = static_cast<int>(channels - c);
      store_partial(cell + c, load_partial(grad + c, lanes) * factor, lanes);
    }
  }
}

// Windows that do not overlap: a cell takes the gradient of its window, if it has one. Cells are
// written from left to right, so full vectors may spill.
static void disjoint_grad_row(const AvgPoolGradRow& r) noexcept {
  const PoolColumns& g = *r.columns;
  const float* const scales = r.scales + r.first_row * g.output_width;
  const float* grad = r.grad_output + r.first_row * g.output_width * g.output_pitch;
  Index done = 0;
  for (Index ow = 0; ow < g.output_width; ++ow, grad += g.output_pitch) {
    const Index start = ow * g.stride - g.left;
    const Index end = start + g.kernel < g.input_width ? start + g.kernel : g.input_width;
    if (start > done) {
      const Index gap = (start < g.input_width ? start : g.input_width) - done;
      fill(r.grad_input + done * g.channels, gap * g.channels, 0.0f);
      done += gap;
    }
    const Index room = r.grad_output_end - grad;
    for (; done < end; ++done) {
      float* const cell = r.grad_input + done * g.channels;
      const Index room_here = r.grad_input_end - cell;
      scale_cell(grad, scales[ow], cell, g.channels, room < room_here ? room : room_here);
    }
  }
  fill(r.grad_input + done * g.channels, (g.input_width - done) * g.channels, 0.0f);
}

void avg_pool_grad_row(const AvgPoolGradRow& r) noexcept {
  const PoolColumns& g = *r.columns;
  if (r.first_row + 1 == r.end_row && g.kernel <= g.stride) {
    disjoint_grad_row(r);
    return;
  }
  // The windows that hold column iw: `begin` and `end` move right with it.
  Index begin = 0, end = 0;
  for (Index iw = 0; iw < g.input_width; ++iw) {
    while (end < g.output_width && end * g.stride - g.left <= iw) ++end;
    while (begin < end && begin * g.stride - g.left + g.kernel <= iw) ++begin;
    const float* const last =
        r.grad_output + ((r.end_row - 1) * g.output_width + end - 1) * g.output_pitch;
    float* const grad_input = r.grad_input + iw * g.channels;
    for (Index c = 0; c < g.channels; c += kLanes) {
      if (c + kLanes <= g.channels ||
          (r.grad_output_end - last >= c + kLanes && r.grad_input_end - grad_input >= c + kLanes)) {
        store(grad_input + c, sum_gradients(r, begin, end, c, kLanes));
      } else {
        const int lanes = static_cast<int>(g.channels - c);
        store_partial(grad_input + c, sum_gradients(r, begin, end, c, lanes), lanes);
      }
    }
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
