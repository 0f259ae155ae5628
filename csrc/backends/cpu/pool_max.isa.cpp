#include "backends/cpu/pool.h"
#include "backends/cpu/pool.isa.h"

namespace pycnn::cpu::PYCNN_ISA {

// The larger one; the first operand if they are equal or the second is not a number.
PYCNN_INLINE Vec larger(Vec first, Vec x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_max_ps(0xFFFF, (__m512)x, (__m512)first);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)x, (__m256)first);
#else
  return x > first ? x : first;
#endif
}

// All taps of a window of fixed size, and which lanes hold a NaN.
template <int KH, int KW>
PYCNN_INLINE Mask load_taps(const Window& w, Index c, int lanes, Vec* taps) {
  for (int kh = 0; kh < KH; ++kh)
    for (int kw = 0; kw < KW; ++kw)
      taps[kh * KW + kw] = load_lanes(w.first + kh * w.step_h + kw * w.step_w + c, lanes);
  Mask nan = unordered(taps[0], taps[KH * KW - 1]);
  for (int i = 1; i + 1 < KH * KW; i += 2) nan |= unordered(taps[i], taps[i + 1]);
  return nan;
}

template <int KH, int KW>
PYCNN_INLINE Vec largest(const Window& w, Index c, int lanes) {
  if constexpr (KH > 0) {
    Vec taps[KH * KW];
    const Mask nan = load_taps<KH, KW>(w, c, lanes, taps);
    Vec best = taps[0];
    for (int i = 1; i < KH * KW; ++i) best = larger(best, taps[i]);
    return choose(nan, broadcast(__builtin_nanf("")), best);
  }
  Vec best = load_lanes(w.first + c, lanes);
  for (Index kh = 0; kh < taps_h<KH, KW>(w); ++kh) {
    const float* const row = w.first + kh * w.step_h + c;
    for (Index kw = kh == 0 ? 1 : 0; kw < taps_w<KH, KW>(w); ++kw) {
      const Vec x = load_lanes(row + kw * w.step_w, lanes);
      best = choose(beats(x, best), x, best);
    }
  }
  return best;
}

template <int KH, int KW>
PYCNN_INLINE void max_pixel(const Window& w, Index channels, const float* input_end, float* output,
                            const float* output_end) {
  const float* const last = last_tap<KH, KW>(w);
  Index c = 0;
  for (; c < channels; c += kLanes) {
    if (c + kLanes <= channels ||
        (input_end - last >= c + kLanes && output_end - output >= c + kLanes))
      store(output + c, largest<KH, KW>(w, c, kLanes));
    else {
      const int lanes = static_cast<int>(channels - c);
      store_partial(output + c, largest<KH, KW>(w, c, lanes), lanes);
    }
  }
}

static void max_edge(const PoolRow& r, Index begin, Index end) noexcept {
  const PoolColumns& g = *r.columns;
  for (Index ow = begin; ow < end; ++ow) {
    const Window w = clipped_window(g, r.input, r.taps, r.row_step, ow);
    float* const output = r.output + ow * g.output_pitch;
    if (w.taps_h <= 0 || w.taps_w <= 0)
      fill(output, g.channels, -__builtin_inff());
    else
      max_pixel<0, 0>(w, g.channels, r.input_end, output, r.output_end);
  }
}

template <int KH, int KW>
PYCNN_INLINE void max_interior(const PoolRow& r) {
  const PoolColumns& g = *r.columns;
  Index ow = g.interior_begin;
  if (g.channels <= kLanes) {
    // One vector a pixel: whole ones as long as there is room.
    Index roomy = g.interior_end;
    for (; roomy > ow; --roomy) {
      const Window w = interior_window(g, r.input, r.taps, r.row_step, roomy - 1);
      if (r.input_end - last_tap<KH, KW>(w) >= kLanes &&
          r.output_end - (r.output + (roomy - 1) * g.output_pitch) >= kLanes)
        break;
    }
    for (; ow < roomy; ++ow)
      store(r.output + ow * g.output_pitch,
            largest<KH, KW>(interior_window(g, r.input, r.taps, r.row_step, ow), 0, kLanes));
  }
  for (; ow < g.interior_end; ++ow)
    max_pixel<KH, KW>(interior_window(g, r.input, r.taps, r.row_step, ow), g.channels, r.input_end,
                      r.output + ow * g.output_pitch, r.output_end);
}

void max_pool_row(const PoolRow& r) noexcept {
  const PoolColumns& g = *r.columns;
  if (r.taps <= 0) return max_edge(r, 0, g.output_width);
  max_edge(r, 0, g.interior_begin);
  if (r.taps == 2 && g.kernel == 2)
    max_interior<2, 2>(r);
  else if (r.taps == 3 && g.kernel == 3)
    max_interior<3, 3>(r);
  else
    max_interior<0, 0>(r);
  max_edge(r, g.interior_end, g.output_width);
}

#if defined(__AVX512F__)
// ---- Of bfloat16: 32 channels at a time, those with even numbers as one vector of floats, those
// with odd ones as another. Masks keep to the channels of the pixel.

template <int KH, int KW>
PYCNN_INLINE __m512i largest_of_32(const WindowOf<BFloat16>& w, Index c, __mmask32 channels) {
  Vec even = {}, odd = {};
  UVec twice = {};  // all but the signs, of the largest numbers, or of a NaN
  for (Index kh = 0; kh < taps_h<KH, KW>(w); ++kh) {
    const BFloat16* const row = w.first + kh * w.step_h + c;
    for (Index kw = 0; kw < taps_w<KH, KW>(w); ++kw) {
      const UVec x = (UVec)_mm512_maskz_loadu_epi16(channels, row + kw * w.step_w);
      const Vec first = as_float((IVec)(x << 16)), second = as_float((IVec)(x & 0xFFFF0000u));
      const bool is_first = kh == 0 && kw == 0;
      even = is_first ? first : larger(even, first);
      odd = is_first ? second : larger(odd, second);
      twice = (UVec)_mm512_max_epu16((__m512i)twice, _mm512_add_epi16((__m512i)x, (__m512i)x));
    }
  }
  const UVec best = (UVec)as_int(odd) | ((UVec)as_int(even) >> 16);
  const __mmask32 nan =
      _mm512_cmpgt_epu16_mask((__m512i)twice, _mm512_set1_epi16(static_cast<short>(0xFF00)));
  return _mm512_mask_mov_epi16((__m512i)best, nan, _mm512_set1_epi16(0x7FC0));
}

template <int KH, int KW>
PYCNN_INLINE void max_pixel_bfloat16(const WindowOf<BFloat16>& w, Index channels,
                                     BFloat16* output) {
  for (Index c = 0; c < channels; c += 32) {
    const __mmask32 mask = channels - c >= 32 ? ~0u : (1u << (channels - c)) - 1u;
    _mm512_mask_storeu_epi16(output + c, mask, largest_of_32<KH, KW>(w, c, mask));
  }
}

static void max_edge_bfloat16(const PoolRowOf<BFloat16>& r, Index begin, Index end) noexcept {
  const PoolColumns& g = *r.columns;
  for (Index ow = begin; ow < end; ++ow) {
    const WindowOf<BFloat16> w = clipped_window(g, r.input, r.taps, r.row_step, ow);
    BFloat16* const output = r.output + ow * g.output_pitch;
    if (w.taps_h <= 0 || w.taps_w <= 0)
      for (Index c = 0; c < g.channels; ++c) output[c].bits = 0xFF80;  // minus infinity
    else
      max_pixel_bfloat16<0, 0>(w, g.channels, output);
  }
}

template <int KH, int KW>
PYCNN_INLINE void max_interior_bfloat16(const PoolRowOf<BFloat16>& r) {
  const PoolColumns& g = *r.columns;
  for (Index ow = g.interior_begin; ow < g.interior_end; ++ow)
    max_pixel_bfloat16<KH, KW>(interior_window(g, r.input, r.taps, r.row_step, ow), g.channels,
                               r.output + ow * g.output_pitch);
}

void max_pool_row_bfloat16(const PoolRowOf<BFloat16>& r) noexcept {
  const PoolColumns& g = *r.columns;
  if (r.taps <= 0) return max_edge_bfloat16(r, 0, g.output_width);
  max_edge_bfloat16(r, 0, g.interior_begin);
  if (r.taps == 2 && g.kernel == 2)
    max_interior_bfloat16<2, 2>(r);
  else if (r.taps == 3 && g.kernel == 3)
    max_interior_bfloat16<3, 3>(r);
  else
    max_interior_bfloat16<0, 0>(r);
  max_edge_bfloat16(r, g.interior_end, g.output_width);
}
#endif

// Number of the winning tap per lane, in row-major order of the taps inside the image.
template <int KH, int KW>
PYCNN_INLINE IVec winner(const Window& w, Index c, int lanes) {
  if constexpr (KH > 0) {
    Vec taps[KH * KW];
    const Mask nan = load_taps<KH, KW>(w, c, lanes, taps);
    if (__builtin_expect(!any(nan), 1)) {
      Vec best = taps[0];
      IVec index = {};
      for (int i = 1; i < KH * KW; ++i) {
        index = choose(exceeds(taps[i], best), broadcast_index(i), index);
        best = larger(best, taps[i]);
      }
      return index;
    }
  }
  Vec best = load_lanes(w.first + c, lanes);
  IVec index = {};
  int tap = 0;
  for (Index kh = 0; kh < taps_h<KH, KW>(w); ++kh) {
    const float* const row = w.first + kh * w.step_h + c;
    for (Index kw = 0; kw < taps_w<KH, KW>(w); ++kw, ++tap) {
      if (tap == 0) continue;
      const Vec x = load_lanes(row + kw * w.step_w, lanes);
      const Mask mask = beats(x, best);
      best = choose(mask, x, best);
      index = choose(mask, broadcast_index(tap), index);
    }
  }
  return index;
}

// Gives each tap of the window its share: the gradient where it won, else 0.
template <int KH, int KW, bool kAdd>
PYCNN_INLINE void give_to_winner(const Window& w, float* grad, const float* grad_output, Index c,
                                 int lanes) {
  const IVec index = winner<KH, KW>(w, c, lanes);
  const Vec g = load_lanes(grad_output + c, lanes);
  int tap = 0;
  for (Index kh = 0; kh < taps_h<KH, KW>(w); ++kh) {
    float* const row = grad + kh * w.step_h + c;
    for (Index kw = 0; kw < taps_w<KH, KW>(w); ++kw, ++tap) {
      float* const cell = row + kw * w.step_w;
      Vec share = where_equal(index, broadcast_index(tap), g);
      if (kAdd) share += load_lanes(cell, lanes);
      store_lanes(cell, share, lanes);
    }
  }
}

// Whether window ow may store a full vector from channel c on. What spills from the last channels
// lands in the pixel to the right. That is harmless where the pixel is written later: with windows
// side by side (KW = stride), as far as windows reach, and in this window if its last channels come
// first. It must not leave the row, since the row below may be finished.
PYCNN_INLINE bool may_spill(const MaxPoolGradRow& r, Index ow, Index c) {
  const PoolColumns& g = *r.columns;
  Index reach = g.output_width * g.stride - g.left;
  if (reach > g.input_width) reach = g.input_width;
  const Index room = (reach - ((ow + 1) * g.stride - g.left - 1)) * g.channels;
  return room >= c + kLanes &&
         r.grad_output_end - (r.grad_output + ow * g.output_pitch) >= c + kLanes;
}

template <int KH, int KW, bool kAdd>
PYCNN_INLINE void grad_pixel(const MaxPoolGradRow& r, const Window& w, Index ow) {
  float* const grad = r.grad_input + (w.first - r.input);
  const float* const grad_output = r.grad_output + ow * r.columns->output_pitch;
  const Index whole = r.channel_count / kLanes * kLanes;
  if (whole < r.channel_count) {
    if (!kAdd && KH > 0 && may_spill(r, ow, whole))
      give_to_winner<KH, KW, kAdd>(w, grad, grad_output, whole, kLanes);
    else
      give_to_winner<KH, KW, kAdd>(w, grad, grad_output, whole,
                                   static_cast<int>(r.channel_count - whole));
  }
  for (Index c = 0; c < whole; c += kLanes)
    give_to_winner<KH, KW, kAdd>(w, grad, grad_output, c, kLanes);
}

template <bool kAdd>
PYCNN_INLINE void grad_edge(const MaxPoolGradRow& r, Index begin, Index end) {
  for (Index ow = begin; ow < end; ++ow) {
    const Window w = clipped_window(*r.columns, r.input, r.taps, r.row_step, ow);
    if (w.taps_w > 0) grad_pixel<0, 0, kAdd>(r, w, ow);
  }
}

template <int KH, int KW, bool kAdd>
PYCNN_INLINE void grad_interior(const MaxPoolGradRow& r) {
  const PoolColumns& g = *r.columns;
  Index ow = g.interior_begin;
  if (!kAdd && KH > 0 && g.channels <= kLanes) {
    Index roomy = g.interior_end;
    while (roomy > ow && !may_spill(r, roomy - 1, 0)) --roomy;
    for (; ow < roomy; ++ow) {
      const Window w = interior_window(g, r.input, r.taps, r.row_step, ow);
      give_to_winner<KH, KW, kAdd>(w, r.grad_input + (w.first - r.input),
                                   r.grad_output + ow * g.output_pitch, 0, kLanes);
    }
  }
  for (; ow < g.interior_end; ++ow)
    grad_pixel<KH, KW, kAdd>(r, interior_window(g, r.input, r.taps, r.row_step, ow), ow);
}

void max_pool_grad_row_disjoint(const MaxPoolGradRow& r) noexcept {
  const PoolColumns& g = *r.columns;
  if (r.taps <= 0) return;
  grad_edge<false>(r, 0, g.interior_begin);
  if (r.taps == 2 && g.kernel == 2 && g.stride == 2)
    grad_interior<2, 2, false>(r);
  else
    grad_interior<0, 0, false>(r);
  grad_edge<false>(r, g.interior_end, g.output_width);
}

void max_pool_grad_row_overlapping(const MaxPoolGradRow& r) noexcept {
  const PoolColumns& g = *r.columns;
  if (r.taps <= 0) return;
  grad_edge<true>(r, 0, g.interior_begin);
  if (r.taps == 3 && g.kernel == 3)
    grad_interior<3, 3, true>(r);
  else
    grad_interior<0, 0, true>(r);
  grad_edge<true>(r, g.interior_end, g.output_width);
}

}  // namespace pycnn::cpu::PYCNN_ISA
