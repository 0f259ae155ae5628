// The loops of winograd_pairs.h with AVX-512 and VDPBF16PS.
#include "backends/cpu/pair_strip.isa.h"
#include "backends/cpu/winograd_pairs.h"

namespace pycnn::cpu::avx512_bf16 {
namespace {

static_assert(kPairTilesAtOnce == kMostRows);

// ---- Input

// 32 channels widened: the even ones and the odd ones, whose bits are where float32 has them.
struct Channels {
  __m512 even, odd;
};

PYCNN_INLINE Channels operator+(const Channels& a, const Channels& b) {
  return {_mm512_add_ps(a.even, b.even), _mm512_add_ps(a.odd, b.odd)};
}
PYCNN_INLINE Channels operator-(const Channels& a, const Channels& b) {
  return {_mm512_sub_ps(a.even, b.even), _mm512_sub_ps(a.odd, b.odd)};
}

PYCNN_INLINE Channels channels_of(__m512i bits) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(bits, upper))};
}

PYCNN_INLINE void store_channels(BFloat16* to, const Channels& x) {
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(x.odd, x.even));
}

// One row of a tile, transformed along it.
struct TileRow {
  Channels x[kPairTileSide];
};

struct TilePixels {
  const BFloat16* first;
  Index row_pitch, pixel_pitch;
  __mmask32 channels;
  unsigned inside;  // a bit for each pixel
};

template <bool WHOLE>
PYCNN_INLINE TileRow row_of(const TilePixels& pixels, int row) {
  Channels x[kPairTileSide];
  const BFloat16* from = pixels.first + row * pixels.row_pitch;
#pragma GCC unroll 4
  for (int j = 0; j < kPairTileSide; ++j) {
    if constexpr (WHOLE) {
      x[j] = channels_of(_mm512_loadu_si512(from + j * pixels.pixel_pitch));
    } else {
      const bool there = pixels.inside >> (row * kPairTileSide + j) & 1;
      const __m512i bits =
          there ? _mm512_maskz_loadu_epi16(pixels.channels, from + j * pixels.pixel_pitch)
                : _mm512_setzero_si512();
      x[j] = channels_of(bits);
    }
  }
  return {{x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]}};
}

template <bool WHOLE>
PYCNN_INLINE void transform(const TilePixels& pixels, BFloat16* points, Index plane) {
  auto put = [&](int row, int column, const Channels& x) {
    store_channels(points + (row * kPairTileSide + column) * plane, x);
  };
  const TileRow second = row_of<WHOLE>(pixels, 2), first = row_of<WHOLE>(pixels, 0);
#pragma GCC unroll 4
  for (int j = 0; j < kPairTileSide; ++j) put(0, j, first.x[j] - second.x[j]);
  const TileRow middle = row_of<WHOLE>(pixels, 1);
#pragma GCC unroll 4
  for (int j = 0; j < kPairTileSide; ++j) {
    put(1, j, middle.x[j] + second.x[j]);
    put(2, j, second.x[j] - middle.x[j]);
  }
  const TileRow last = row_of<WHOLE>(pixels, 3);
#pragma GCC unroll 4
  for (int j = 0; j < kPairTileSide; ++j) put(3, j, middle.x[j] - last.x[j]);
}

// The pixels of side x side of a tile; `job` tells about its image.
template <class Job>
PYCNN_INLINE TilePixels pixels_of(const Job& job, const BFloat16* image, Index first_row,
                                  Index first_column, Index side) {
  TilePixels pixels;
  pixels.row_pitch = job.columns * job.pixel_pitch, pixels.pixel_pitch = job.pixel_pitch;
  pixels.first = image + first_row * pixels.row_pitch + first_column * pixels.pixel_pitch;
  pixels.channels = 0;
  pixels.inside = 0;
  for (Index p = 0; image && p < side * side; ++p) {
    const Index row = first_row + p / side, column = first_column + p % side;
    const bool there = row >= 0 && row < job.rows && column >= 0 && column < job.columns;
    pixels.inside |= static_cast<unsigned>(there) << p;
  }
  return pixels;
}

void input(const PairTileInput& job) {
  TilePixels pixels = pixels_of(job, job.image, job.row, job.column, kPairTileSide);
  BFloat16* points = job.points;
  for (Index c = 0; c < job.channels; c += kPairStep, pixels.first += kPairStep) {
    const Index left = job.channels - c;
    pixels.channels = left >= kPairStep ? ~0u : (1u << left) - 1u;
    if (pixels.inside == 0xFFFFu && left >= kPairStep)
      transform<true>(pixels, points, job.plane);
    else
      transform<false>(pixels, points, job.plane);
    points += kPairStep;
  }
}

// ---- Pairs of tiles

// One row of a tile of a gradient, transformed along it.
template <bool WHOLE>
PYCNN_INLINE TileRow gradient_row_of(const TilePixels& pixels, int row) {
  const Channels none = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  Channels x[2];
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    const BFloat16* from = pixels.first + row * pixels.row_pitch + j * pixels.pixel_pitch;
    if constexpr (WHOLE)
      x[j] = channels_of(_mm512_loadu_si512(from));
    else if (pixels.inside >> (row * 2 + j) & 1)
      x[j] = channels_of(_mm512_maskz_loadu_epi16(pixels.channels, from));
    else
      x[j] = none;
  }
  return {{x[0], x[0] + x[1], x[0] - x[1], none - x[1]}};
}

template <bool WHOLE>
PYCNN_INLINE void transform_gradient(const TilePixels& pixels, BFloat16* points, float* sums) {
  const Channels none = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  const TileRow first = gradient_row_of<WHOLE>(pixels, 0);
  const TileRow second = gradient_row_of<WHOLE>(pixels, 1);
  auto put = [&](int row, int column, const Channels& x) {
    store_channels(points + (row * kPairTileSide + column) * kPairStep, x);
  };
#pragma GCC unroll 4
  for (int j = 0; j < kPairTileSide; ++j) {
    put(0, j, first.x[j]);
    put(1, j, first.x[j] + second.x[j]);
    put(2, j, first.x[j] - second.x[j]);
    put(3, j, none - second.x[j]);
  }
  if (!sums) return;
  const Channels sum = first.x[1] + second.x[1];
  _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_loadu_ps(sums), sum.even));
  _mm512_storeu_ps(sums + 16, _mm512_add_ps(_mm512_loadu_ps(sums + 16), sum.odd));
}

// The points of 32 channels of a tile, as `transform` leaves them.
using Points = BFloat16[kPairPoints][kPairStep];

// The channels of two tiles side by side, in their own order again.
PYCNN_INLINE void weave(const Points& x, const Points& y, BFloat16* to, Index plane,
                        Index group_pitch) {
  const __m512i low = _mm512_set_epi16(55, 23, 39, 7, 54, 22, 38, 6, 53, 21, 37, 5, 52, 20, 36, 4,
                                       51, 19, 35, 3, 50, 18, 34, 2, 49, 17, 33, 1, 48, 16, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(8));
#pragma GCC unroll 4
  for (int p = 0; p < kPairPoints; ++p, to += plane) {
    const __m512i a = _mm512_load_si512(x[p]), b = _mm512_load_si512(y[p]);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, low, b));
    _mm512_storeu_si512(to + group_pitch, _mm512_permutex2var_epi16(a, high, b));
  }
}

// transform(pixels, whole, points, first channel): one tile's 32 channels.
template <int SIDE, class F>
PYCNN_INLINE void put_pairs(const TilePairs& job, F transform) {
  constexpr unsigned kAll = (1u << SIDE * SIDE) - 1u;
  TilePixels pixels[2 * kMostTilePairs];
  for (Index t = 0; t < 2 * job.pairs; ++t) {
    const PairTilePlace& tile = job.tiles[t];
    pixels[t] = pixels_of(job, tile.image, tile.row, tile.column, SIDE);
  }
  alignas(64) Points points[2];
  // Lines of one stream after one another: there are more streams than ways of the cache.
  for (Index c = 0; c < job.channels; c += kPairStep) {
    const Index left = job.channels - c;
    const __mmask32 channels = left >= kPairStep ? ~0u : (1u << left) - 1u;
    BFloat16* const to = job.points + c / 16 * job.group_pitch;
    for (Index pair = 0; pair < job.pairs; ++pair) {
      for (int i = 0; i < 2; ++i) {
        TilePixels& tile = pixels[2 * pair + i];
        tile.channels = channels;
        if (tile.inside == 0) {
          __builtin_memset(static_cast<void*>(points[i]), 0, sizeof points[i]);
          continue;
        }
        transform(tile, tile.inside == kAll && left >= kPairStep, points[i][0], c);
        tile.first += kPairStep;
      }
      weave(points[0], points[1], to + pair * kPairBlock, job.plane, job.group_pitch);
    }
  }
}

void input_pairs(const TilePairs& job) {
  put_pairs<kPairTileSide>(job, [](const TilePixels& tile, bool whole, BFloat16* points, Index) {
    if (whole)
      transform<true>(tile, points, kPairStep);
    else
      transform<false>(tile, points, kPairStep);
  });
}

void gradient_pairs(const TilePairs& job) {
  put_pairs<2>(job, [&](const TilePixels& tile, bool whole, BFloat16* points, Index channel) {
    float* const sums = job.sums ? job.sums + channel : nullptr;
    if (whole)
      transform_gradient<true>(tile, points, sums);
    else
      transform_gradient<false>(tile, points, sums);
  });
}

// ---- Products

template <int ROWS>
void run_tiles(const PairTileProducts& job, const BFloat16* points, const BFloat16* weights,
               float* to) {
  Sums<ROWS> sums;
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) sums.low[r] = sums.high[r] = _mm512_setzero_ps();
  Rows rows;
  rows.step = job.tile_pitch * static_cast<Index>(sizeof(BFloat16));
  rows.first = reinterpret_cast<const char*>(points);
  rows.second = rows.first + ROWS / 2 * rows.step;
  constexpr Index kStepBytes = kPairStep * static_cast<Index>(sizeof(BFloat16));
  for (Index s = 0; s < job.steps; ++s, weights += 2 * kPairHalf) {
    multiply(sums, rows, weights, weights + kPairHalf, 16);
    rows.first += kStepBytes, rows.second += kStepBytes;
  }
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) {
    _mm512_storeu_ps(to + r * kPairBlock, sums.low[r]);
    _mm512_storeu_ps(to + r * kPairBlock + 16, sums.high[r]);
  }
}

using RunTiles = void (*)(const PairTileProducts&, const BFloat16*, const BFloat16*, float*);
// Index: half of the tiles.
constexpr RunTiles kTiles[] = {nullptr,      run_tiles<2>,  run_tiles<4>,  run_tiles<6>,
                               run_tiles<8>, run_tiles<10>, run_tiles<12>, run_tiles<14>};

void products(const PairTileProducts& job) {
  const Index pairs = job.tiles / 2, strips = (job.tiles + kMostRows - 1) / kMostRows;
  for (Index p = 0; p < kPairPoints; ++p) {
    const BFloat16* points = job.points + p * job.plane;
    const BFloat16* weights = job.weights + p * job.weight_plane;
    float* sums = job.sums + p * job.sum_plane;
    for (Index strip = 0, done = 0; strip < strips; ++strip) {
      const Index end = pairs * (strip + 1) / strips;
      kTiles[end - done](job, points + 2 * done * job.tile_pitch, weights,
                         sums + 2 * done * kPairBlock);
      done = end;
    }
  }
}

// Two groups of tiles as in Rows, at point 0, and their sums.
struct ShiftedTiles {
  const BFloat16* first;
  const BFloat16* second;
  float* first_sums;
  float* second_sums;
};

template <int ROWS>
void run_shifted(const ShiftedTileProducts& job, const ShiftedTiles& tiles, Index p) {
  constexpr Index kBytes = sizeof(BFloat16), kStepBytes = kPairStep * kBytes;
  Sums<ROWS> sums;
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) sums.low[r] = sums.high[r] = _mm512_setzero_ps();
  Rows rows;
  rows.step = job.tile_pitch * kBytes;
  for (Index window = 0; window < 4; ++window) {
    const Index down = window / 2, right = window % 2;
    if (has_no_point(down, p / kPairTileSide) || has_no_point(right, p % kPairTileSide)) continue;
    const BFloat16* weights = job.weights + window * job.window_weights + p * job.weight_plane;
    const Index at = p * job.plane + down * job.row_pitch + right * job.tile_pitch;
    rows.first = reinterpret_cast<const char*>(tiles.first + at);
    rows.second = reinterpret_cast<const char*>(tiles.second + at);
    for (Index s = 0; s < job.steps; ++s, weights += 2 * kPairHalf) {
      multiply(sums, rows, weights, weights + kPairHalf, 16);
      rows.first += kStepBytes, rows.second += kStepBytes;
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) {
    constexpr int kFirst = ROWS / 2;
    float* to = p * job.sum_plane + (r < kFirst ? tiles.first_sums + r * kPairBlock
                                                : tiles.second_sums + (r - kFirst) * kPairBlock);
    _mm512_storeu_ps(to, sums.low[r]);
    _mm512_storeu_ps(to + 16, sums.high[r]);
  }
}

using RunShifted = void (*)(const ShiftedTileProducts&, const ShiftedTiles&, Index);
// Index: half of the tiles.
constexpr RunShifted kShifted[] = {nullptr,         run_shifted<2>, run_shifted<4>,
                                   run_shifted<6>,  run_shifted<8>, run_shifted<10>,
                                   run_shifted<12>, run_shifted<14>};

// A part of a row, an even number of tiles.
ShiftedTiles part_of_row(const ShiftedTileProducts& job, Index row, Index pair, Index pairs) {
  const BFloat16* first = job.points + row * job.row_pitch + 2 * pair * job.tile_pitch;
  float* sums = job.sums + row * job.sum_row + 2 * pair * kPairBlock;
  return {first, first + pairs * job.tile_pitch, sums, sums + pairs * kPairBlock};
}

void shifted_products(const ShiftedTileProducts& job) {
  const Index pairs = (job.columns + 1) / 2, strips = (2 * pairs + kMostRows - 1) / kMostRows;
  // Two short rows at a time.
  const Index twos = 2 * job.columns <= kMostRows ? job.rows / 2 * 2 : 0;
  for (Index p = 0; p < kPairPoints; ++p) {
    for (Index row = 0; row < twos; row += 2) {
      const BFloat16* first = job.points + row * job.row_pitch;
      float* sums = job.sums + row * job.sum_row;
      kShifted[job.columns](job, {first, first + job.row_pitch, sums, sums + job.sum_row}, p);
    }
    for (Index row = twos; row < job.rows; ++row)
      for (Index strip = 0, done = 0; strip < strips; ++strip) {
        const Index end = pairs * (strip + 1) / strips;
        kShifted[end - done](job, part_of_row(job, row, done, end - done), p);
        done = end;
      }
  }
}

// ---- Output

// Of 2x2 outputs, 16 channels.
struct Outputs {
  __m512 x[4];
};

PYCNN_INLINE Outputs outputs_of(const float* sums, Index plane, __m512 bias) {
  __m512 left[kPairTileSide], right[kPairTileSide];
#pragma GCC unroll 4
  for (int i = 0; i < kPairTileSide; ++i) {
    const float* row = sums + i * kPairTileSide * plane;
    const __m512 b = _mm512_loadu_ps(row + plane), c = _mm512_loadu_ps(row + 2 * plane);
    left[i] = _mm512_add_ps(_mm512_loadu_ps(row), _mm512_add_ps(b, c));
    right[i] = _mm512_sub_ps(_mm512_sub_ps(b, c), _mm512_loadu_ps(row + 3 * plane));
  }
  auto first = [&](const __m512(&x)[kPairTileSide]) {
    return _mm512_add_ps(_mm512_add_ps(x[0], _mm512_add_ps(x[1], x[2])), bias);
  };
  auto second = [&](const __m512(&x)[kPairTileSide]) {
    return _mm512_add_ps(_mm512_sub_ps(_mm512_sub_ps(x[1], x[2]), x[3]), bias);
  };
  return {{first(left), first(right), second(left), second(right)}};
}

void output(const PairTileOutput& job) {
  const Outputs low = outputs_of(job.sums, job.plane, _mm512_loadu_ps(job.bias));
  const Outputs high = outputs_of(job.sums + 16, job.plane, _mm512_loadu_ps(job.bias + 16));
  const __mmask32 wanted = job.channels >= kPairBlock ? ~0u : (1u << job.channels) - 1u;
  const __m512 floor = _mm512_set1_ps(job.relu ? 0.0f : -__builtin_inff());
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    if (i / 2 >= job.rows || i % 2 >= job.columns) continue;
    const Index at = i / 2 * job.row_pitch + i % 2 * job.pixel_pitch;
    __m512 x = low.x[i], y = high.x[i];
    if (job.residual) {
      const __m512i bits = _mm512_maskz_loadu_epi16(wanted, job.residual + at);
      x = _mm512_add_ps(x, widened(_mm512_castsi512_si256(bits)));
      y = _mm512_add_ps(y, widened(_mm512_extracti64x4_epi64(bits, 1)));
    }
    if (job.activation) {
      alignas(64) float values[kPairBlock];
      _mm512_store_ps(values, x), _mm512_store_ps(values + 16, y);
      job.activation(values, values, kPairBlock, job.slope);
      x = _mm512_load_ps(values), y = _mm512_load_ps(values + 16);
    }
    x = at_least(floor, x), y = at_least(floor, y);
    if (job.mask) {
      const __m512i bits = _mm512_maskz_loadu_epi16(wanted, job.mask + at);
      x = masked(_mm512_castsi512_si256(bits), x);
      y = masked(_mm512_extracti64x4_epi64(bits, 1), y);
    }
    _mm512_mask_storeu_epi16(job.output + at, wanted, (__m512i)_mm512_cvtne2ps_pbh(y, x));
  }
}

}  // namespace

const PairTileUnit kPairTiles = {input,       products,       shifted_products,    output,
                                 input_pairs, gradient_pairs, &avx512::kActivation};

}  // namespace pycnn::cpu::avx512_bf16
