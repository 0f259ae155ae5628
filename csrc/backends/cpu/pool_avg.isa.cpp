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

#if defined(__AVX512F__)
// ---- Of bfloat16 in 2x2 windows: as many of them as fill a vector.

PYCNN_INLINE __mmask32 words(Index count) {
  return count >= 32 ? ~0u : count <= 0 ? 0u : (1u << count) - 1u;
}

PYCNN_INLINE Pair widened(__m512i half) {
  auto upper = [](__m256i x) {
    return (Vec)_mm512_maskz_slli_epi32(0xFFFF, _mm512_maskz_cvtepu16_epi32(0xFFFF, x), 16);
  };
  return {upper(_mm512_maskz_extracti64x4_epi64(0xFF, half, 0)),
          upper(_mm512_maskz_extracti64x4_epi64(0xFF, half, 1))};
}

PYCNN_INLINE __m512i rounded(Pair x) {
  const __m512i odd_words =
      _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                       25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_permutex2var_epi16((__m512i)rounded_bits(x.first), odd_words,
                                   (__m512i)rounded_bits(x.second));
}

// Adds the two pixels of each window, from left to right.
PYCNN_INLINE Pair add_row(Pair sum, const BFloat16* row, Index count, __m512i left, __m512i right) {
  const __m512i x = _mm512_maskz_loadu_epi16(words(count), row);
  const __m512i y = _mm512_maskz_loadu_epi16(words(count - 32), row + 32);
  const Pair first = widened(_mm512_permutex2var_epi16(x, left, y));
  const Pair second = widened(_mm512_permutex2var_epi16(x, right, y));
  return {sum.first + first.first + second.first, sum.second + first.second + second.second};
}

void mean_of_four_bfloat16(const WindowsOfFour& job) noexcept {
  const Index channels = job.channels, group = 32 / channels, row = 2 * job.columns * channels;
  alignas(64) std::int16_t places[32];
  for (Index i = 0; i < 32; ++i)
    places[i] = static_cast<std::int16_t>(i / channels * 2 * channels + i % channels);
  const __m512i left = _mm512_load_si512(places);
  const __m512i right = _mm512_add_epi16(left, _mm512_set1_epi16(static_cast<short>(channels)));
  const Vec quarter = broadcast(0.25f);  // as exact as dividing by 4
  const BFloat16* from = job.image;
  BFloat16* to = job.windows;
  for (Index r = 0; r < job.rows; ++r, from += row)
    for (Index w = 0; w < job.columns; w += group) {
      const Index count = (w + group < job.columns ? group : job.columns - w) * channels;
      Pair sum = {zero(), zero()};
      sum = add_row(sum, from, 2 * count, left, right);
      sum = add_row(sum, from + row, 2 * count, left, right);
      _mm512_mask_storeu_epi16(to, words(count),
                               rounded({sum.first * quarter, sum.second * quarter}));
      from += 2 * count, to += count;
    }
}

void mean_of_four_grad_bfloat16(const WindowsOfFour& job) noexcept {
  const Index channels = job.channels, group = 32 / channels, row = 2 * job.columns * channels;
  alignas(64) std::int16_t places[64];
  for (Index i = 0; i < 64; ++i)
    places[i] = static_cast<std::int16_t>(i / (2 * channels) * channels + i % channels);
  const __m512i low = _mm512_load_si512(places), high = _mm512_load_si512(places + 32);
  const Vec quarter = broadcast(0.25f);
  const BFloat16* from = job.windows;
  BFloat16* to = job.image;
  for (Index r = 0; r < job.rows; ++r, to += row)
    for (Index w = 0; w < job.columns; w += group) {
      const Index count = (w + group < job.columns ? group : job.columns - w) * channels;
      const Pair grad = widened(_mm512_maskz_loadu_epi16(words(count), from));
      const __m512i shares = rounded({grad.first * quarter, grad.second * quarter});
      const __m512i x = _mm512_maskz_permutexvar_epi16(~0u, low, shares);
      const __m512i y = _mm512_maskz_permutexvar_epi16(~0u, high, shares);
      for (Index i = 0; i < 2; ++i) {
        _mm512_mask_storeu_epi16(to + i * row, words(2 * count), x);
        _mm512_mask_storeu_epi16(to + i * row + 32, words(2 * count - 32), y);
      }
      from += count, to += 2 * count;
    }
}
#endif

}  // namespace pycnn::cpu::PYCNN_ISA
