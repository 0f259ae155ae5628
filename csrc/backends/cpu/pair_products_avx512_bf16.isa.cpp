// The loops of pair_products.h with VDPBF16PS: 8 rows times 32 columns in registers, so that two
// loads of weights and eight broadcasts serve sixteen products.
#include <immintrin.h>

#include "backends/cpu/pair_products.h"

#define PYCNN_INLINE static inline __attribute__((always_inline))

namespace pycnn::cpu::avx512_bf16 {
namespace {

constexpr int kRows = 8;

struct Sums {
  __m512 low[kRows], high[kRows];
};

PYCNN_INLINE __m512bh pair_at(const BFloat16* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return (__m512bh)_mm512_set1_epi32(pair);
}

PYCNN_INLINE __m512bh load(const BFloat16* p) { return (__m512bh)_mm512_loadu_si512(p); }

PYCNN_INLINE void multiply(Sums& sums, const BFloat16* a, Index a_row, const BFloat16* low,
                           const BFloat16* high, Index pairs) {
  const BFloat16* second = a + 4 * a_row;
  for (Index pair = 0; pair < pairs; ++pair) {
    const __m512bh l = load(low), h = load(high);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512bh x = pair_at(r < 4 ? a + r * a_row : second + (r - 4) * a_row);
      sums.low[r] = _mm512_dpbf16_ps(sums.low[r], x, l);
      sums.high[r] = _mm512_dpbf16_ps(sums.high[r], x, h);
    }
    a += 2, second += 2, low += kPairBlock, high += kPairBlock;
  }
}

PYCNN_INLINE __m512 widened(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// The larger one of x and floor; x where it is NaN.
PYCNN_INLINE __m512 at_least(__m512 floor, __m512 x) { return _mm512_max_ps(floor, x); }

void finish(const PairTiles& job, Sums& sums, const Index* rows, Index first) {
  const Index left = job.channels - first;
  const __mmask32 wanted = left >= kPairBlock ? ~0u : (1u << left) - 1u;
  const __m512 floor = _mm512_set1_ps(job.relu ? 0.0f : -__builtin_inff());
  alignas(64) float values[kRows][kPairBlock];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    if (job.residual && rows[r] >= 0) {
      const __m512i bits = _mm512_maskz_loadu_epi16(wanted, job.residual + rows[r] + first);
      sums.low[r] = _mm512_add_ps(sums.low[r], widened(_mm512_castsi512_si256(bits)));
      sums.high[r] = _mm512_add_ps(sums.high[r], widened(_mm512_extracti64x4_epi64(bits, 1)));
    }
    _mm512_store_ps(values[r], sums.low[r]);
    _mm512_store_ps(values[r] + 16, sums.high[r]);
  }
  if (job.activation) job.activation(values[0], values[0], kRows * kPairBlock, job.slope);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    if (rows[r] < 0) continue;
    const __m512 low = at_least(floor, _mm512_load_ps(values[r]));
    const __m512 high = at_least(floor, _mm512_load_ps(values[r] + 16));
    _mm512_mask_storeu_epi16(job.output + rows[r] + first, wanted,
                             (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

void run_tile(const PairTiles& job, Index tile, Index block) {
  const Index half = job.pairs * kPairBlock;
  const BFloat16* const weights = job.weights + block * job.step_count * 2 * half;
  const Index* const steps = job.steps + block * job.step_pitch;
  const float* const bias = job.bias + block * kPairBlock;
  for (Index first = 0; first < kPairBlock; first += kRows) {
    const BFloat16* const input =
        job.input + job.halves[2 * tile + first / kPairRows] + first % kPairRows * job.input_row;
    Sums sums;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      sums.low[r] = _mm512_loadu_ps(bias);
      sums.high[r] = _mm512_loadu_ps(bias + 16);
    }
    const BFloat16* from = weights;
    for (Index s = 0; s < job.step_count; ++s, from += 2 * half)
      multiply(sums, input + steps[s], job.input_row, from, from + half, job.pairs);
    finish(job, sums, job.rows + tile * kPairBlock + first, block * kPairBlock);
  }
}

void tiles(const PairTiles& job) {
  if (job.blocks_first) {
    for (Index tile = 0; tile < job.tiles; ++tile)
      for (Index block = job.block_begin; block < job.block_end; ++block)
        run_tile(job, tile, block);
  } else {
    for (Index block = job.block_begin; block < job.block_end; ++block)
      for (Index tile = 0; tile < job.tiles; ++tile) run_tile(job, tile, block);
  }
}

void add_sums(const PairSums& job, const BFloat16* a, const BFloat16* b, float* to) {
  for (Index first = 0; first < kPairBlock; first += kRows, to += kRows * kPairBlock) {
    const BFloat16* rows = a + first / kPairRows * job.a_half + first % kPairRows * kPairStep;
    const BFloat16* columns = b;
    Sums sums;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      sums.low[r] = job.accumulate ? _mm512_loadu_ps(to + r * kPairBlock) : _mm512_setzero_ps();
      sums.high[r] =
          job.accumulate ? _mm512_loadu_ps(to + r * kPairBlock + 16) : _mm512_setzero_ps();
    }
    for (Index s = 0; s < job.steps; ++s, rows += kPairHalf, columns += kPairHalf)
      multiply(sums, rows, kPairStep, columns, columns + job.b_half, 16);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      _mm512_storeu_ps(to + r * kPairBlock, sums.low[r]);
      _mm512_storeu_ps(to + r * kPairBlock + 16, sums.high[r]);
    }
  }
}

void sums(const PairSums& job) {
  for (Index row = 0; row < job.row_blocks; ++row) {
    const BFloat16* a = job.a + 2 * row * job.a_half;
    const BFloat16* b = job.b;
    float* to = job.sums + row * job.sums_row;
    for (Index column = 0; column < job.column_blocks; ++column, b += 2 * job.b_half)
      for (Index tap = 0; tap < job.tap_count; ++tap, to += kPairBlock * kPairBlock)
        add_sums(job, a, b + job.taps[tap], to);
  }
}

// ---- Operands

// Words of the lower half with those of the upper one: x0 y0 x1 y1 ...
PYCNN_INLINE __m512i woven(__m512i halves) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}

PYCNN_INLINE __m256i pixel_at(const BFloat16* pixel, Index channel, __mmask16 wanted) {
  return pixel ? _mm256_maskz_loadu_epi16(wanted, pixel + channel) : _mm256_setzero_si256();
}

PYCNN_INLINE __m512i two_pixels(const BFloat16* const* pixels, Index channel, __mmask16 wanted) {
  const __m256i first = pixel_at(pixels[0], channel, wanted);
  const __m256i second = pixel_at(pixels[1], channel, wanted);
  return woven(_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
}

PYCNN_INLINE __mmask16 channels_from(Index channels, Index first) {
  const Index left = channels - first;
  return static_cast<__mmask16>(left >= 16 ? 0xFFFFu : (1u << left) - 1u);
}

PYCNN_INLINE void transpose_16x16(__m512i (&x)[16]) {
  __m512i y[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
    y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    x[4 * i] = _mm512_unpacklo_epi64(y[4 * i], y[4 * i + 2]);
    x[4 * i + 1] = _mm512_unpackhi_epi64(y[4 * i], y[4 * i + 2]);
    x[4 * i + 2] = _mm512_unpacklo_epi64(y[4 * i + 1], y[4 * i + 3]);
    x[4 * i + 3] = _mm512_unpackhi_epi64(y[4 * i + 1], y[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
    y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xDD);
    y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
    y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xDD);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
    x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xDD);
    x[i + 4] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88);
    x[i + 12] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xDD);
  }
}

void interleave(const PixelPairs& job) {
  for (Index pair = 0; pair < job.pairs; ++pair) {
    BFloat16* to = job.to + pair * kPairBlock;
    for (Index channel = 0; channel < job.channels; channel += 16, to += job.group_pitch)
      _mm512_storeu_si512(to, two_pixels(job.pixels + 2 * pair, job.first_channel + channel,
                                         channels_from(job.channels, channel)));
  }
}

void transpose(const PixelPairs& job) {
  for (Index pair = 0; pair < job.pairs; pair += 16) {
    BFloat16* to = job.to + pair * kPairBlock;
    for (Index channel = 0; channel < job.channels; channel += 16, to += job.group_pitch) {
      const __mmask16 wanted = channels_from(job.channels, channel);
      __m512i x[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        x[i] = two_pixels(job.pixels + 2 * (pair + i), job.first_channel + channel, wanted);
      transpose_16x16(x);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * kPairStep, x[i]);
    }
  }
}

PYCNN_INLINE __m512i rounded(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Columns follow one another in memory.
void pack_columns(const PairWeights& job) {
  const __mmask16 wanted = channels_from(job.columns, 0);
  for (Index pair = 0; pair < job.pairs; ++pair) {
    __m512 x[2];
    for (int i = 0; i < 2; ++i) {
      const Index e = 2 * pair + i;
      x[i] = _mm512_maskz_loadu_ps(e < job.elements ? wanted : 0, job.from + e * job.element_pitch);
    }
    _mm512_storeu_si512(job.to + pair * kPairBlock, woven(rounded(x[0], x[1])));
  }
}

// Elements follow one another in memory.
void pack_rows(const PairWeights& job) {
  const __mmask16 low = channels_from(job.elements, 0);
  const __mmask16 high = job.elements > 16 ? channels_from(job.elements, 16) : 0;
  __m512i x[16];
#pragma GCC unroll 16
  for (int c = 0; c < 16; ++c) {
    const bool valid = c < job.columns;
    const float* from = job.from + c * job.column_pitch;
    x[c] = rounded(_mm512_maskz_loadu_ps(valid ? low : 0, from),
                   _mm512_maskz_loadu_ps(valid ? high : 0, from + 16));
  }
  transpose_16x16(x);
#pragma GCC unroll 16
  for (int pair = 0; pair < 16; ++pair)
    if (pair < job.pairs) _mm512_storeu_si512(job.to + pair * kPairBlock, x[pair]);
}

void pack(const PairWeights& job) {
  if (job.element_pitch == 1) return pack_rows(job);
  if (job.column_pitch == 1) return pack_columns(job);
  portable::kPairUnit.pack(job);
}

}  // namespace

const PairUnit kPairUnit = {tiles, sums, interleave, transpose, pack, &avx512::kActivation};

}  // namespace pycnn::cpu::avx512_bf16
