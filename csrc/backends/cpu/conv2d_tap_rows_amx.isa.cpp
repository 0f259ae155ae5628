// The loops of conv2d_tap_rows.h with TDPBF16PS: tiles of 16 taps times 16 output channels.
#include "backends/cpu/amx_tiles.isa.h"
#include "backends/cpu/conv2d_tap_rows.h"

namespace pycnn::cpu::amx {
namespace {

using Index = std::int64_t;

constexpr int kWords = 32;       // of a vector
constexpr int kTapColumns = 32;  // of sums
constexpr int kPairBytes = 128;  // of a pair of pixels' gradients
constexpr int kSumRowBytes = 128;
constexpr Index kMostStep = 32;

PYCNN_INLINE __mmask32 words(Index count) {
  return count >= kWords ? ~0u : count <= 0 ? 0u : (1u << count) - 1u;
}

// What lies before and behind the image as zeros.
PYCNN_INLINE __m512i elements_at(const TapRows& job, const BFloat16* row, Index e) {
  return _mm512_maskz_loadu_epi16(words(job.end - e) & ~words(job.begin - e), row + e);
}

// A row's elements x * step + p one after another, for all p < step.
PYCNN_INLINE void sort_row(const TapRows& job, const BFloat16* row, BFloat16* sorted) {
  alignas(64) std::int16_t counting[kWords];
  for (int i = 0; i < kWords; ++i) counting[i] = static_cast<std::int16_t>(i);
  const __m512i places = _mm512_mullo_epi16(_mm512_load_si512(counting),
                                            _mm512_set1_epi16(static_cast<std::int16_t>(job.step)));
  for (Index p = 0; p < job.step; ++p) {
    const __m512i place = _mm512_add_epi16(places, _mm512_set1_epi16(static_cast<std::int16_t>(p)));
    const __m512i vector = _mm512_srli_epi16(place, 5);  // the word in it: the lowest five bits
    __mmask32 wanted[kMostStep];
    for (Index v = 0; v < job.step; ++v)
      wanted[v] = _mm512_cmpeq_epi16_mask(vector, _mm512_set1_epi16(static_cast<std::int16_t>(v)));
    BFloat16* to = sorted + p * job.plane_pitch;
    for (Index x = 0; x < job.plane; x += kWords) {
      __m512i found = _mm512_setzero_si512();
      const Index first = x * job.step, last = first + kWords * job.step;
      if (first >= job.begin && last <= job.end)
        for (Index v = 0; v < job.step; ++v)
          found = _mm512_mask_permutexvar_epi16(found, wanted[v], place,
                                                _mm512_loadu_si512(row + first + v * kWords));
      else
        for (Index v = 0; v < job.step; ++v)
          found = _mm512_mask_permutexvar_epi16(found, wanted[v], place,
                                                elements_at(job, row, first + v * kWords));
      _mm512_storeu_si512(to + x, found);
    }
  }
}

// All rows are sorted before any is shifted: a load that meets two stores waits for both.
void tap_rows(const TapRows& job) {
  const Index row = job.step * job.plane_pitch, pixels = 2 * job.pairs;
  for (Index r = 0; r < job.rows; ++r)
    sort_row(job, job.from + r * job.from_row, job.sorted + r * row);
  BFloat16* to = job.to;
  const __mmask32 all = words(pixels), last = words(job.columns - (job.steps - 1) * pixels);
  for (Index r = 0; r < job.rows; ++r)
    for (Index t = 0; t < job.taps; ++t) {
      const BFloat16* from = job.sorted + r * row + job.places[t];
      for (Index s = 1; s < job.steps; ++s, from += pixels, to += kTapStep)
        _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(all, from));
      _mm512_storeu_si512(to, _mm512_maskz_loadu_epi16(last, from));
      to += kTapStep;
    }
}

// The sums of ROWS tiles of taps and COLUMNS of channels, at most four. Tile instructions want
// numbers of tiles that are known: sums are [row][column] of COLUMNS.
template <int ROWS, int COLUMNS>
PYCNN_INLINE void load_sums(const float* from) {
  if constexpr (COLUMNS == 2) {
    _tile_loadd(0, from, kSumRowBytes);
    _tile_loadd(1, from + 16, kSumRowBytes);
    if constexpr (ROWS > 1) _tile_loadd(2, from + kTileRows * kTapColumns, kSumRowBytes);
    if constexpr (ROWS > 1) _tile_loadd(3, from + kTileRows * kTapColumns + 16, kSumRowBytes);
  } else {
    _tile_loadd(0, from, kSumRowBytes);
    if constexpr (ROWS > 1) _tile_loadd(1, from + kTileRows * kTapColumns, kSumRowBytes);
    if constexpr (ROWS > 2) _tile_loadd(2, from + 2 * kTileRows * kTapColumns, kSumRowBytes);
    if constexpr (ROWS > 3) _tile_loadd(3, from + 3 * kTileRows * kTapColumns, kSumRowBytes);
  }
}

template <int ROWS, int COLUMNS>
PYCNN_INLINE void store_sums(float* to) {
  if constexpr (COLUMNS == 2) {
    _tile_stored(0, to, kSumRowBytes);
    _tile_stored(1, to + 16, kSumRowBytes);
    if constexpr (ROWS > 1) _tile_stored(2, to + kTileRows * kTapColumns, kSumRowBytes);
    if constexpr (ROWS > 1) _tile_stored(3, to + kTileRows * kTapColumns + 16, kSumRowBytes);
  } else {
    _tile_stored(0, to, kSumRowBytes);
    if constexpr (ROWS > 1) _tile_stored(1, to + kTileRows * kTapColumns, kSumRowBytes);
    if constexpr (ROWS > 2) _tile_stored(2, to + 2 * kTileRows * kTapColumns, kSumRowBytes);
    if constexpr (ROWS > 3) _tile_stored(3, to + 3 * kTileRows * kTapColumns, kSumRowBytes);
  }
}

template <int ROWS, int COLUMNS>
void add_taps(const TapRowSums& job, Index tap) {
  float* const sums = job.sums + tap * kTapColumns;
  const Index tap_bytes = 2 * job.input_tap, tile = kTileRows * job.input_tap;
  if (job.accumulate) {
    load_sums<ROWS, COLUMNS>(sums);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (Index r = 0; r < job.rows; ++r) {
    const BFloat16* a = job.input + r * job.input_row + tap * job.input_tap;
    const BFloat16* b = job.grad + r * job.grad_row;
    for (Index s = 0; s < job.steps; ++s) {
      _tile_loadd(6, b, kPairBytes);
      _tile_loadd(4, a, tap_bytes);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (COLUMNS == 2) {
        _tile_loadd(7, b + 32, kPairBytes);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (ROWS > 1) {
          _tile_loadd(5, a + tile, tap_bytes);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      } else {
        if constexpr (ROWS > 1) {
          _tile_loadd(5, a + tile, tap_bytes);
          _tile_dpbf16ps(1, 5, 6);
        }
        if constexpr (ROWS > 2) {
          _tile_loadd(4, a + 2 * tile, tap_bytes);
          _tile_dpbf16ps(2, 4, 6);
        }
        if constexpr (ROWS > 3) {
          _tile_loadd(5, a + 3 * tile, tap_bytes);
          _tile_dpbf16ps(3, 5, 6);
        }
      }
      a += kTapStep, b += 2 * job.pairs * kTapColumns;
    }
  }
  store_sums<ROWS, COLUMNS>(sums);
}

void tap_row_sums(const TapRowSums& job) {
  configure(job.pairs);
  const Index tiles = (job.taps + kTileRows - 1) / kTileRows;
  Index tile = 0;
  if (job.channels > 16) {
    for (; tile + 2 <= tiles; tile += 2) add_taps<2, 2>(job, tile * kTileRows);
    if (tile < tiles) add_taps<1, 2>(job, tile * kTileRows);
  } else {
    for (; tile + 4 <= tiles; tile += 4) add_taps<4, 1>(job, tile * kTileRows);
    if (tiles - tile == 3) add_taps<3, 1>(job, tile * kTileRows);
    if (tiles - tile == 2) add_taps<2, 1>(job, tile * kTileRows);
    if (tiles - tile == 1) add_taps<1, 1>(job, tile * kTileRows);
  }
  _tile_release();
}

}  // namespace

const TapRowLoops kTapRowLoops = {tap_rows, tap_row_sums};

}  // namespace pycnn::cpu::amx
