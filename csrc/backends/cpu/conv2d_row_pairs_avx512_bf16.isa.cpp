// The loops of conv2d_row_pairs.h with VDPBF16PS: up to 14 elements of a row of taps times 32
// output channels in registers.
#include "backends/cpu/conv2d_row_pairs.h"
#include "backends/cpu/pair_strip.isa.h"

namespace pycnn::cpu::avx512_bf16 {
namespace {

// Words of the lower half with those of the upper one: x0 y0 x1 y1 ...
PYCNN_INLINE __m512i paired(__m256i first, __m256i second) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order,
                                  _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
}

PYCNN_INLINE __mmask16 lanes(Index left) {
  return static_cast<__mmask16>(left >= 16 ? 0xFFFFu : left <= 0 ? 0u : (1u << left) - 1u);
}

void distant_pairs(const DistantPairs& job) {
  for (Index e = 0; e < job.count; e += 16) {
    const __mmask16 wanted = lanes(job.count - e);
    const BFloat16* from = job.from + e;
    _mm512_mask_storeu_epi32(job.to + 2 * e, wanted,
                             paired(_mm256_maskz_loadu_epi16(wanted, from),
                                    _mm256_maskz_loadu_epi16(wanted, from + job.distance)));
  }
}

// The words `from` and those of `from + 16` of both: x0 y0 x1 y1 ...
PYCNN_INLINE __m512i woven(__m512i x, __m512i y, int from) {
  const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i first = _mm512_add_epi16(order, _mm512_set1_epi16(static_cast<short>(from)));
  return _mm512_permutex2var_epi16(x, first, y);
}

void grad_row_pairs(const GradRowPairs& job) {
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3F80);
  for (Index channel = 0; channel < job.channels; channel += kPairBlock) {
    const Index left = job.channels - channel;
    const __mmask32 wanted = left >= kPairBlock ? ~0u : (1u << left) - 1u;
    const BFloat16* from = job.from + channel;
    BFloat16* to = job.to + channel / kPairBlock * job.block_pitch;
    float* const bias = job.bias ? job.bias + channel : nullptr;
    __m512 low = bias ? _mm512_loadu_ps(bias) : _mm512_setzero_ps();
    __m512 high = bias ? _mm512_loadu_ps(bias + 16) : _mm512_setzero_ps();
    for (Index column = 0; column < job.columns; column += 2) {
      const __m512i x = _mm512_maskz_loadu_epi16(wanted, from);
      const __m512i y =
          _mm512_maskz_loadu_epi16(column + 1 < job.columns ? wanted : 0, from + job.channels);
      const __m512i l = woven(x, y, 0), h = woven(x, y, 16);
      _mm512_storeu_si512(to, l);
      _mm512_storeu_si512(to + kPairBlock, h);
      if (bias) {
        low = _mm512_dpbf16_ps(low, (__m512bh)l, ones);
        high = _mm512_dpbf16_ps(high, (__m512bh)h, ones);
      }
      from += 2 * job.channels, to += 2 * kPairBlock;
    }
    if (!bias) continue;
    _mm512_storeu_ps(bias, low);
    _mm512_storeu_ps(bias + 16, high);
  }
}

template <int ROWS>
void add_elements(const RowPairSums& job, Index first) {
  constexpr Index kPair = 2 * sizeof(BFloat16);
  float* const to = job.sums + first * kPairBlock;
  Sums<ROWS> sums;
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) {
    sums.low[r] = job.accumulate ? _mm512_loadu_ps(to + r * kPairBlock) : _mm512_setzero_ps();
    sums.high[r] = job.accumulate ? _mm512_loadu_ps(to + r * kPairBlock + 16) : _mm512_setzero_ps();
  }
  for (Index row = 0; row < job.rows; ++row) {
    const char* x = reinterpret_cast<const char*>(job.input + row * job.input_row + 2 * first);
    const BFloat16* grad = job.grad + row * job.grad_row;
    for (Index pair = 0; pair < job.pairs; ++pair) {
      const __m512bh l = load(grad), h = load(grad + kPairBlock);
#pragma GCC unroll 14
      for (int r = 0; r < ROWS; ++r) {
        const __m512bh element = pair_at(x + r * kPair);
        sums.low[r] = _mm512_dpbf16_ps(sums.low[r], element, l);
        sums.high[r] = _mm512_dpbf16_ps(sums.high[r], element, h);
      }
      x += job.step * kPair, grad += 2 * kPairBlock;
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) {
    _mm512_storeu_ps(to + r * kPairBlock, sums.low[r]);
    _mm512_storeu_ps(to + r * kPairBlock + 16, sums.high[r]);
  }
}

using AddElements = void (*)(const RowPairSums&, Index);
constexpr AddElements kElements[] = {
    nullptr,          add_elements<1>,  add_elements<2>,  add_elements<3>,  add_elements<4>,
    add_elements<5>,  add_elements<6>,  add_elements<7>,  add_elements<8>,  add_elements<9>,
    add_elements<10>, add_elements<11>, add_elements<12>, add_elements<13>, add_elements<14>};

// Strips of about as many elements each.
void row_pair_sums(const RowPairSums& job) {
  const Index strips = (job.elements + kMostRows - 1) / kMostRows;
  for (Index s = 0; s < strips; ++s) {
    const Index first = job.elements * s / strips;
    kElements[job.elements * (s + 1) / strips - first](job, first);
  }
}

}  // namespace

const RowPairLoops kRowPairLoops = {distant_pairs, grad_row_pairs, row_pair_sums};

}  // namespace pycnn::cpu::avx512_bf16
