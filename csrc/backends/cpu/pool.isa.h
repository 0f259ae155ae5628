#pragma once
#include "backends/cpu/pool.h"
#include "backends/cpu/simd.isa.h"

// What the inner loops of pooling share.
namespace pycnn::cpu::PYCNN_ISA {

using Index = std::int64_t;

// The winner of a window is the first maximum in row-major order, or its first NaN: a later tap
// beats the best so far when that is a number and the tap is larger or NaN.
#if defined(__AVX512F__)
using Mask = __mmask16;
PYCNN_INLINE Mask beats(Vec x, Vec best) {
  const Mask number = _mm512_cmp_ps_mask((__m512)best, (__m512)best, _CMP_ORD_Q);
  return _mm512_mask_cmp_ps_mask(number, (__m512)x, (__m512)best, _CMP_NLE_UQ);
}
PYCNN_INLINE Vec choose(Mask mask, Vec yes, Vec no) {
  return (Vec)_mm512_mask_blend_ps(mask, (__m512)no, (__m512)yes);
}
PYCNN_INLINE IVec choose(Mask mask, IVec yes, IVec no) {
  return (IVec)_mm512_mask_blend_epi32(mask, (__m512i)no, (__m512i)yes);
}
PYCNN_INLINE Mask exceeds(Vec a, Vec b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
}
PYCNN_INLINE bool any(Mask mask) { return mask != 0; }
PYCNN_INLINE Mask unordered(Vec a, Vec b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q);
}
PYCNN_INLINE Vec where_equal(IVec a, IVec b, Vec value) {
  return (Vec)_mm512_maskz_mov_ps(_mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b), (__m512)value);
}
#else
using Mask = IVec;
PYCNN_INLINE Mask beats(Vec x, Vec best) { return ~(x <= best) & (best == best); }
PYCNN_INLINE Vec choose(Mask mask, Vec yes, Vec no) { return mask ? yes : no; }
PYCNN_INLINE IVec choose(Mask mask, IVec yes, IVec no) { return mask ? yes : no; }
PYCNN_INLINE Mask exceeds(Vec a, Vec b) { return a > b; }
PYCNN_INLINE bool any(Mask mask) {
#if defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#else
  using Two = std::int64_t __attribute__((vector_size(16)));
  const Two two = (Two)mask;
  return (two[0] | two[1]) != 0;
#endif
}
PYCNN_INLINE Mask unordered(Vec a, Vec b) { return (a != a) | (b != b); }
PYCNN_INLINE Vec where_equal(IVec a, IVec b, Vec value) {
  return as_float((a == b) & as_int(value));
}
#endif

PYCNN_INLINE IVec broadcast_index(int i) { return i - IVec{}; }

// The part of a window that lies inside the image.
template <class T>
struct WindowOf {
  const T* first;  // first tap inside the image, channel 0
  Index taps_h, taps_w;
  Index step_h, step_w;
};
using Window = WindowOf<float>;

// Compile-time tap counts KH, KW; 0 means those of the window.
template <int KH, int KW, class T>
PYCNN_INLINE Index taps_h(const WindowOf<T>& w) {
  return KH > 0 ? KH : w.taps_h;
}
template <int KH, int KW, class T>
PYCNN_INLINE Index taps_w(const WindowOf<T>& w) {
  return KW > 0 ? KW : w.taps_w;
}
template <int KH, int KW>
PYCNN_INLINE const float* last_tap(const Window& w) {
  return w.first + (taps_h<KH, KW>(w) - 1) * w.step_h + (taps_w<KH, KW>(w) - 1) * w.step_w;
}

PYCNN_INLINE void fill(float* output, Index count, float value) {
  for (Index i = 0; i < count; ++i) output[i] = value;
}

// For windows near the border.
template <class T>
PYCNN_INLINE WindowOf<T> clipped_window(const PoolColumns& g, const T* input, Index taps,
                                        Index row_step, Index ow) {
  const Index start = ow * g.stride - g.left;
  const Index first = start < 0 ? (-start + g.dilation - 1) / g.dilation : 0;
  Index end = start < g.input_width ? (g.input_width - start + g.dilation - 1) / g.dilation : first;
  if (end > g.kernel) end = g.kernel;
  return {input + (start + first * g.dilation) * g.input_pitch, taps, end - first, row_step,
          g.dilation * g.input_pitch};
}

// For windows wholly inside the columns of the image.
template <class T>
PYCNN_INLINE WindowOf<T> interior_window(const PoolColumns& g, const T* input, Index taps,
                                         Index row_step, Index ow) {
  return {input + (ow * g.stride - g.left) * g.input_pitch, taps, g.kernel, row_step,
          g.dilation * g.input_pitch};
}

}  // namespace pycnn::cpu::PYCNN_ISA
