#pragma once
#include "backends/cpu/pool.h"
#include "backends/cpu/simd.isa.h"

// What the gradients of max pooling of bfloat16 share: 32 channels at a time.
#if defined(__AVX512F__)
namespace pycnn::cpu::PYCNN_ISA {

using Index = std::int64_t;

// The first of 32 channels; none where a row is padded by whole vectors.
PYCNN_INLINE __mmask32 mask_of_32(Index channels) {
  return channels >= 32 ? ~0u : channels > 0 ? (1u << channels) - 1u : 0u;
}
PYCNN_INLINE __m512i load_32(const std::int16_t* p) { return _mm512_loadu_si512(p); }
PYCNN_INLINE __m512i broadcast_16(Index x) { return _mm512_set1_epi16(static_cast<short>(x)); }

PYCNN_INLINE __m512i keys_of(__m512i x) {
  const __m512i size = _mm512_and_si512(x, _mm512_set1_epi16(0x7FFF));
  const __m512i key = _mm512_mask_sub_epi16(size, _mm512_movepi16_mask(x), __m512i{}, size);
  return _mm512_mask_mov_epi16(key, _mm512_cmpgt_epi16_mask(size, _mm512_set1_epi16(0x7F80)),
                               _mm512_set1_epi16(0x7FFF));
}

// The windows that hold one pixel, and the number that it has in each.
struct Holders {
  const std::int16_t* winners[kMostWindowTaps];
  const BFloat16* grads[kMostWindowTaps];
  Index taps[kMostWindowTaps];
  int count;
};

struct Columns {
  Index begin, end;
};

// Taps of a window that lie in the columns of the image.
PYCNN_INLINE Columns taps_of_column(const PoolColumns& g, Index ow) {
  const Index start = ow * g.stride - g.left;
  Index end = start < g.input_width ? (g.input_width - start + g.dilation - 1) / g.dilation : 0;
  if (end > g.kernel) end = g.kernel;
  return {start < 0 ? (-start + g.dilation - 1) / g.dilation : 0, end};
}

PYCNN_INLINE Columns columns_that_hold(const PoolColumns& g, Index iw) {
  const Index below = iw + g.left - (g.kernel - 1) * g.dilation, end = (iw + g.left) / g.stride + 1;
  return {below <= 0 ? 0 : (below + g.stride - 1) / g.stride,
          end < g.output_width ? end : g.output_width};
}

PYCNN_INLINE void find_holders(const MaxPoolGradOfRow& r, Index iw, Holders* holders) {
  const PoolColumns& g = *r.columns;
  const Columns columns = columns_that_hold(g, iw);
  int count = 0;
  for (Index row = 0; row < r.window_rows; ++row) {
    const MaxPoolWindows& windows = r.windows[row];
    for (Index ow = columns.begin; ow < columns.end; ++ow) {
      const Index reach = iw + g.left - ow * g.stride;
      if (g.dilation > 1 && reach % g.dilation != 0) continue;
      holders->winners[count] = windows.winners + ow * r.pitch;
      holders->grads[count] = windows.grad_output + ow * g.output_pitch;
      holders->taps[count] = windows.first_tap + (g.dilation > 1 ? reach / g.dilation : reach);
      ++count;
    }
  }
  holders->count = count;
}

// Calls f(first, pixels) for all pixels of a row, as many at a time, each a stride on from the one
// before, as are held by the next windows.
template <class F>
PYCNN_INLINE void for_like_pixels(const PoolColumns& g, const F& f) {
  // Those whose columns all exist are held by as many as their neighbours a stride away.
  Index begin = (g.kernel - 1) * g.dilation - g.left;
  Index end = g.output_width * g.stride - g.left;
  begin = begin < 0 ? 0 : begin;
  end = end < g.input_width ? end : g.input_width;
  if (begin >= end) begin = end = g.input_width;
  for (Index iw = 0; iw < begin; ++iw) f(iw, 1);
  for (Index iw = begin; iw < end && iw < begin + g.stride; ++iw)
    f(iw, (end - iw + g.stride - 1) / g.stride);
  for (Index iw = end; iw < g.input_width; ++iw) f(iw, 1);
}

}  // namespace pycnn::cpu::PYCNN_ISA
#endif
