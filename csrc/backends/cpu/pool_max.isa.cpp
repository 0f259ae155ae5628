#include "backends/cpu/pool.h"
#include "backends/cpu/pool.isa.h"
#include "backends/cpu/pool_winners.isa.h"

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

// ---- Small windows side by side: columns are compared first and windows share them, as whole
// numbers (keys) without signs. In their order minus infinity is 0 and NaNs of either sign, which
// wrap around, are above plus infinity. 0 is above -0, though, of which the first one is to win:
// rows that have a -0, which is rare, are done once more by floats.

constexpr short kSignBit = static_cast<short>(0x8000), kNegativeNans = 0x7F;
constexpr short kKeyOfInfinity = static_cast<short>(0xFF80 - kNegativeNans);

PYCNN_INLINE __m512i ordered(__m512i x) {
  const __m512i sign = _mm512_srai_epi16(x, 15);
  // x ^ (sign | kSignBit)
  const __m512i flipped = _mm512_ternarylogic_epi32(x, sign, _mm512_set1_epi16(kSignBit), 0x1E);
  return _mm512_sub_epi16(flipped, _mm512_set1_epi16(kNegativeNans));
}
PYCNN_INLINE __m512i number_of(__m512i key) {
  const __m512i flipped = _mm512_add_epi16(key, _mm512_set1_epi16(kNegativeNans));
  const __m512i above = _mm512_srai_epi16(flipped, 15);
  // flipped ^ (~above | kSignBit)
  const __m512i x = _mm512_ternarylogic_epi32(flipped, above, _mm512_set1_epi16(kSignBit), 0x4B);
  return _mm512_mask_mov_epi16(x, _mm512_cmpgt_epu16_mask(key, _mm512_set1_epi16(kKeyOfInfinity)),
                               _mm512_set1_epi16(0x7FC0));
}

// 32 * VECTORS channels from c on, or (VECTORS = 1) those of the mask. Whether none of them is -0.
template <int K, int STRIDE, int VECTORS>
PYCNN_INLINE bool max_along_row(const PoolRowOf<BFloat16>& r, Index c, __mmask32 mask) {
  const PoolColumns& g = *r.columns;
  const Index width = g.input_width, pitch = g.input_pitch, output_pitch = g.output_pitch;
  // At the border a row stands in for those that are missing.
  const BFloat16* const top = r.input + c;
  const BFloat16* const middle = top + (r.taps > 1 ? r.row_step : 0);
  const BFloat16* const bottom = top + (r.taps - 1) * r.row_step;
  BFloat16* output = r.output + c;
  __mmask32 other[3] = {~0u, ~0u, ~0u};  // than -0; for each row, since they are slow to change
  const auto load = [&](const BFloat16* p, int row) __attribute__((always_inline)) {
    const __m512i x = VECTORS > 1 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(mask, p);
    other[row] = _mm512_mask_cmpneq_epi16_mask(other[row], x, _mm512_set1_epi16(kSignBit));
    return ordered(x);
  };
  const auto column = [&](Index iw, __m512i * best) __attribute__((always_inline)) {
    if (static_cast<std::uint64_t>(iw) >= static_cast<std::uint64_t>(width)) {
      for (int v = 0; v < VECTORS; ++v) best[v] = __m512i{};
      return;
    }
    for (int v = 0; v < VECTORS; ++v) {
      const Index at = iw * pitch + v * 32;
      best[v] = _mm512_max_epu16(load(top + at, 0), load(bottom + at, 1));
      if constexpr (K == 3) best[v] = _mm512_max_epu16(best[v], load(middle + at, 2));
    }
  };
  constexpr int kShared = K - STRIDE;
  __m512i columns[K][VECTORS];
  for (int k = 0; k < kShared; ++k) column(k - g.left, columns[k]);
  Index iw = kShared - g.left;
  for (Index ow = 0; ow < g.output_width; ++ow, iw += STRIDE, output += output_pitch) {
#pragma GCC unroll 3
    for (int k = 0; k < STRIDE; ++k) column(iw + k, columns[kShared + k]);
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) {
      __m512i best = columns[0][v];
#pragma GCC unroll 3
      for (int k = 1; k < K; ++k) best = _mm512_max_epu16(best, columns[k][v]);
      const __m512i largest = number_of(best);
      if constexpr (VECTORS > 1)
        _mm512_storeu_si512(output + v * 32, largest);
      else
        _mm512_mask_storeu_epi16(output, mask, largest);
#pragma GCC unroll 2
      for (int k = 0; k < kShared; ++k) columns[k][v] = columns[k + STRIDE][v];
    }
  }
  return (other[0] & other[1] & other[2]) == ~0u;
}

template <int K, int STRIDE>
static bool max_along_channels(const PoolRowOf<BFloat16>& r) noexcept {
  const Index channels = r.columns->channels;
  bool done = true;
  Index c = 0;
  for (; c + 64 <= channels; c += 64) done &= max_along_row<K, STRIDE, 2>(r, c, ~0u);
  for (; c < channels; c += 32) {
    const __mmask32 mask = channels - c >= 32 ? ~0u : (1u << (channels - c)) - 1u;
    done &= max_along_row<K, STRIDE, 1>(r, c, mask);
  }
  return done;
}

// False if the row is to be done by floats.
PYCNN_INLINE bool max_of_small_windows(const PoolRowOf<BFloat16>& r) {
  const PoolColumns& g = *r.columns;
  if (g.dilation != 1 || r.taps > g.kernel) return false;
  if (g.kernel == 3 && g.stride == 1) return max_along_channels<3, 1>(r);
  if (g.kernel == 3 && g.stride == 2) return max_along_channels<3, 2>(r);
  if (g.kernel == 2 && g.stride == 2) return max_along_channels<2, 2>(r);
  return false;
}

void max_pool_row_bfloat16(const PoolRowOf<BFloat16>& r) noexcept {
  const PoolColumns& g = *r.columns;
  if (r.taps <= 0) return max_edge_bfloat16(r, 0, g.output_width);
  if (max_of_small_windows(r)) return;
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

#if defined(__AVX512F__)
// ---- Gradient of bfloat16, 32 channels at a time

// Taps [first, end) of the window that begins at `column`. KW: how many, or 0.
template <int KW, bool kValues>
PYCNN_INLINE void best_taps(const MaxPoolTaps& r, Index ow, Index column, Index first, Index end) {
  const Index step = r.columns->dilation * r.pitch;
  const std::int16_t* const from = r.keys + column * r.pitch + first * step;
  const Index pixel = r.columns->dilation * r.columns->input_pitch;
  const BFloat16* const input = r.input + column * r.columns->input_pitch + first * pixel;
  const Index count = KW > 0 ? KW : end - first;
  for (Index c = 0; c < r.pitch; c += 32) {
    __m512i best = load_32(from + c), tap = broadcast_16(first), value = {};
    const __mmask32 mask = mask_of_32(r.channel_count - c);
    if constexpr (kValues) value = _mm512_maskz_loadu_epi16(mask, input + c);
#pragma GCC unroll 3
    for (Index k = 1; k < count; ++k) {
      const __m512i x = load_32(from + k * step + c);
      const __mmask32 won = _mm512_cmpgt_epi16_mask(x, best);
      tap = _mm512_mask_mov_epi16(tap, won, broadcast_16(first + k));
      if constexpr (kValues)
        value = _mm512_mask_loadu_epi16(value, won & mask, input + k * pixel + c);
      best = _mm512_max_epi16(best, x);
    }
    _mm512_storeu_si512(r.best + ow * r.pitch + c, best);
    _mm512_storeu_si512(r.taps + ow * r.pitch + c, tap);
    if constexpr (kValues) _mm512_storeu_si512(r.values + ow * r.pitch + c, value);
  }
}

template <bool kValues>
static void best_taps_at_edge(const MaxPoolTaps& r, Index begin, Index end) noexcept {
  const PoolColumns& g = *r.columns;
  for (Index ow = begin; ow < end; ++ow) {
    const Columns taps = taps_of_column(g, ow);
    if (taps.begin < taps.end) {
      best_taps<0, kValues>(r, ow, ow * g.stride - g.left, taps.begin, taps.end);
      continue;
    }
    for (Index c = 0; c < r.pitch; c += 32) {  // nobody will ask which tap has won
      _mm512_storeu_si512(r.best + ow * r.pitch + c, __m512i{});
      _mm512_storeu_si512(r.taps + ow * r.pitch + c, __m512i{});
      if constexpr (kValues) _mm512_storeu_si512(r.values + ow * r.pitch + c, __m512i{});
    }
  }
}

template <int KW, bool kValues>
PYCNN_INLINE void best_taps_inside(const MaxPoolTaps& r) {
  const PoolColumns& g = *r.columns;
  for (Index ow = g.interior_begin; ow < g.interior_end; ++ow)
    best_taps<KW, kValues>(r, ow, ow * g.stride - g.left, 0, g.kernel);
}

template <bool kValues>
static void best_taps_of_row(const MaxPoolTaps& r) noexcept {
  const PoolColumns& g = *r.columns;
  best_taps_at_edge<kValues>(r, 0, g.interior_begin);
  if (g.kernel == 2)
    best_taps_inside<2, kValues>(r);
  else if (g.kernel == 3)
    best_taps_inside<3, kValues>(r);
  else
    best_taps_inside<0, kValues>(r);
  best_taps_at_edge<kValues>(r, g.interior_end, g.output_width);
}

void max_pool_taps(const MaxPoolTaps& r) noexcept {
  if (r.values) return best_taps_of_row<true>(r);
  for (Index iw = 0; iw < r.columns->input_width; ++iw)
    for (Index c = 0; c < r.channel_count; c += 32)
      _mm512_storeu_si512(
          r.keys + iw * r.pitch + c,
          keys_of(_mm512_maskz_loadu_epi16(mask_of_32(r.channel_count - c),
                                           r.input + iw * r.columns->input_pitch + c)));
  best_taps_of_row<false>(r);
}

template <bool kValues>
static void winners_of_row(const MaxPoolWinners& r) noexcept {
  const __m512i first = broadcast_16(r.first_tap);
  for (Index i = 0; i < r.size; i += 32) {
    __m512i best = load_32(r.best[0] + i), value = {};
    __m512i winner = _mm512_add_epi16(load_32(r.taps[0] + i), first);
    if constexpr (kValues) value = load_32(r.values[0] + i);
    for (Index row = 1; row < r.rows; ++row) {
      const __m512i x = load_32(r.best[row] + i);
      const __mmask32 won = _mm512_cmpgt_epi16_mask(x, best);
      winner = _mm512_mask_add_epi16(winner, won, load_32(r.taps[row] + i),
                                     broadcast_16(r.first_tap + row * r.row_taps));
      if constexpr (kValues) value = _mm512_mask_loadu_epi16(value, won, r.values[row] + i);
      best = _mm512_max_epi16(best, x);
    }
    _mm512_storeu_si512(r.winners + i, winner);
    if constexpr (kValues) _mm512_storeu_si512(r.winning + i, value);
  }
}

void max_pool_winners(const MaxPoolWinners& r) noexcept {
  r.values ? winners_of_row<true>(r) : winners_of_row<false>(r);
}

// `pixels` that windows hold, each a stride on from the one before and held by the next windows.
// COUNT: how many windows, or 0.
template <int COUNT>
static void give_pixels(const MaxPoolGradOfRow& r, const Holders& holders, Index iw, Index pixels) {
  const PoolColumns& g = *r.columns;
  const int count = COUNT > 0 ? COUNT : holders.count;
  const Vec first = broadcast(r.disjoint && count > 0 ? -0.0f : 0.0f);
  BFloat16* to = r.grad_input + iw * g.input_pitch;
  const BFloat16* const fetch = r.fetch ? r.fetch + iw * g.input_pitch : nullptr;
  Index winners = 0, grads = 0;
  for (Index p = 0; p < pixels; ++p) {
    for (Index c = 0; c < r.channel_count; c += 32) {
      const __mmask32 mask = mask_of_32(r.channel_count - c);
      if (fetch) __builtin_prefetch(fetch + p * g.stride * g.input_pitch + c);
      Vec even = first, odd = first;
#pragma GCC unroll 9
      for (int i = 0; i < count; ++i) {
        const __mmask32 won = _mm512_mask_cmpeq_epi16_mask(
            mask, load_32(holders.winners[i] + winners + c), broadcast_16(holders.taps[i]));
        const UVec grad = (UVec)_mm512_maskz_loadu_epi16(won, holders.grads[i] + grads + c);
        even += as_float((IVec)(grad << 16));
        odd += as_float((IVec)(grad & 0xFFFF0000u));
      }
      const UVec words = (rounded_bits(even) >> 16) | (rounded_bits(odd) & 0xFFFF0000u);
      if (r.streamed && mask == ~0u && reinterpret_cast<std::uintptr_t>(to + c) % 64 == 0)
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to + c), (__m512i)words);
      else
        _mm512_mask_storeu_epi16(to + c, mask, (__m512i)words);
    }
    to += g.stride * g.input_pitch, winners += r.pitch, grads += g.output_pitch;
  }
}

static void give_like_pixels(const MaxPoolGradOfRow& r, Index iw, Index pixels) noexcept {
  Holders holders;
  find_holders(r, iw, &holders);
  switch (holders.count) {
    case 1:
      return give_pixels<1>(r, holders, iw, pixels);
    case 2:
      return give_pixels<2>(r, holders, iw, pixels);
    case 4:
      return give_pixels<4>(r, holders, iw, pixels);
    case 6:
      return give_pixels<6>(r, holders, iw, pixels);
    case 9:
      return give_pixels<9>(r, holders, iw, pixels);
    default:
      return give_pixels<0>(r, holders, iw, pixels);
  }
}

void max_pool_grad_of_row(const MaxPoolGradOfRow& r) noexcept {
  for_like_pixels(
      *r.columns, [&](Index iw, Index pixels)
                      __attribute__((always_inline)) { give_like_pixels(r, iw, pixels); });
  if (r.streamed) _mm_sfence();  // before anybody else may read them
}
#endif

}  // namespace pycnn::cpu::PYCNN_ISA
