// The loops of pair_products.h with VDPBF16PS: up to 14 rows times 32 columns in registers, so that
// two loads of weights and fourteen broadcasts serve 28 products. A row costs what it costs: those
// that nobody wants are left out, and short halves are taken together. The upper half of the last
// block of columns is left out where it would be filled up only.
#include "backends/cpu/fetch_pixels.isa.h"
#include "backends/cpu/pair_products.h"
#include "backends/cpu/pair_strip.isa.h"

namespace pycnn::cpu::avx512_bf16 {
namespace {

constexpr int kSumRows = 8;  // of the square blocks of PairSums

// By way of a copy: sums whose address is taken would live in memory all the time.
template <int ROWS>
PYCNN_INLINE void apply(const PairTiles& job, Sums<ROWS>& sums) {
  alignas(64) float values[ROWS][kPairBlock];
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) {
    _mm512_store_ps(values[r], sums.low[r]);
    _mm512_store_ps(values[r] + 16, sums.high[r]);
  }
  job.activation(values[0], values[0], ROWS * kPairBlock, job.slope);
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) {
    sums.low[r] = _mm512_load_ps(values[r]);
    sums.high[r] = _mm512_load_ps(values[r] + 16);
  }
}

// Where the results of a strip of rows go: two groups, as in Rows.
struct Places {
  const Index* first;
  const Index* second;
};

template <int ROWS>
PYCNN_INLINE Index place_of(const Places& places, int r) {
  return r < ROWS / 2 ? places.first[r] : places.second[r - ROWS / 2];
}

template <int ROWS>
PYCNN_INLINE void finish(const PairTiles& job, Sums<ROWS>& sums, const Places& places,
                         Index first) {
  const Index left = job.channels - first;
  const __mmask32 wanted = left >= kPairBlock ? ~0u : (1u << left) - 1u;
  const __m512 floor = _mm512_set1_ps(job.relu ? 0.0f : -__builtin_inff());
  if (job.residual)
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      const Index at = place_of<ROWS>(places, r);
      if (at < 0) continue;
      const __m512i bits = _mm512_maskz_loadu_epi16(wanted, job.residual + at + first);
      sums.low[r] = _mm512_add_ps(sums.low[r], widened(_mm512_castsi512_si256(bits)));
      sums.high[r] = _mm512_add_ps(sums.high[r], widened(_mm512_extracti64x4_epi64(bits, 1)));
    }
  if (job.activation) apply(job, sums);
  if (job.mask)
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      const Index at = place_of<ROWS>(places, r);
      if (at < 0) continue;
      const __m512i bits = _mm512_maskz_loadu_epi16(wanted, job.mask + at + first);
      sums.low[r] = masked(_mm512_castsi512_si256(bits), sums.low[r]);
      sums.high[r] = masked(_mm512_extracti64x4_epi64(bits, 1), sums.high[r]);
    }
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) {
    const Index at = place_of<ROWS>(places, r);
    if (at < 0) continue;
    const __m512 low = at_least(floor, sums.low[r]), high = at_least(floor, sums.high[r]);
    _mm512_mask_storeu_epi16(job.output + at + first, wanted,
                             (__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
}

// A strip of rows times a block of columns.
struct Strip {
  const BFloat16* first;
  const BFloat16* second;
  Places places;
};

// Lines to be fetched to the second-level cache, so many at each step.
struct Upcoming {
  const char* row = nullptr;
  Index row_lines = 0, pitch = 0;  // bytes
  Index left = 0, each = 0;
  Index at = 0;
};

PYCNN_INLINE void fetch(Upcoming& upcoming) {
  constexpr Index kLine = 64;
  const Index count = upcoming.left < upcoming.each ? upcoming.left : upcoming.each;
  upcoming.left -= count;
  for (Index i = 0; i < count; ++i) {
    __builtin_prefetch(upcoming.row + upcoming.at * kLine, 0, 2);
    if (++upcoming.at == upcoming.row_lines) upcoming.at = 0, upcoming.row += upcoming.pitch;
  }
}

// Some steps of the sums. Those of the steps before and after pass through `values`, [row][32].
struct Piece {
  Index begin, end;
  bool first, last;
  float* values;
  Upcoming* upcoming;
};

PYCNN_INLINE const BFloat16* weights_of(const PairTiles& job, Index block) {
  return job.weights + block * job.step_count * 2 * job.pairs * kPairBlock;
}

// Which halves of a block of columns are multiplied.
enum class Columns { kBoth, kLow };

// `multiply` for the lower half alone.
template <int ROWS>
PYCNN_INLINE void multiply_low(Sums<ROWS>& sums, const Rows& rows, const BFloat16* low,
                               Index pairs) {
  const Index step = rows.step, step3 = 3 * step, step5 = 5 * step;
  const char* a = rows.first;
  const char* b = rows.second;
  for (Index pair = 0; pair < pairs; ++pair) {
    const __m512bh l = load(low);
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      const int j = r < ROWS / 2 ? r : r - ROWS / 2;
      const Index at = j == 3 ? step3 : j == 5 ? step5 : j == 6 ? 2 * step3 : j * step;
      sums.low[r] = _mm512_dpbf16_ps(sums.low[r], pair_at((r < ROWS / 2 ? a : b) + at), l);
    }
    a += 2 * sizeof(BFloat16), b += 2 * sizeof(BFloat16);
    low += kPairBlock;
    asm volatile("" : "+r"(a), "+r"(b), "+r"(low));
  }
}

template <int ROWS, Columns kColumns>
void run_strip(const PairTiles& job, const Strip& strip, Index block, const Piece& piece) {
  auto add = [](Sums<ROWS> & sums, const Rows& rows, const BFloat16* low, const BFloat16* high,
                Index pairs) __attribute__((always_inline)) {
    if constexpr (kColumns == Columns::kLow)
      multiply_low(sums, rows, low, pairs);
    else
      multiply(sums, rows, low, high, pairs);
  };
  const Index half = job.pairs * kPairBlock;
  const BFloat16* weights = weights_of(job, block) + piece.begin * 2 * half;
  const Index* const steps = job.steps + block * job.step_pitch;
  const float* const bias = job.bias + block * kPairBlock;
  Sums<ROWS> sums;
  const __m512 low = _mm512_loadu_ps(bias), high = _mm512_loadu_ps(bias + 16);
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) sums.low[r] = low, sums.high[r] = high;
  if (!piece.first)
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      sums.low[r] = _mm512_load_ps(piece.values + r * kPairBlock);
      sums.high[r] = _mm512_load_ps(piece.values + r * kPairBlock + 16);
    }
  // By the end of the sums they will have come.
  const BFloat16* const others[] = {job.residual, job.mask};
  for (const BFloat16* const other : others) {
    if (!other || !piece.last) continue;
#pragma GCC unroll 14
    for (int r = 0; r < ROWS; ++r) {
      const Index at = place_of<ROWS>(strip.places, r);
      if (at >= 0) __builtin_prefetch(other + at + block * kPairBlock);
    }
  }
  constexpr Index kBytes = sizeof(BFloat16);
  const Index pairs = job.odd ? job.pairs - 1 : job.pairs, last = (2 * pairs - 1) * kBytes;
  Rows rows;
  rows.step = job.input_row * kBytes;
  for (Index s = piece.begin; s < piece.end; ++s, weights += 2 * half) {
    fetch(*piece.upcoming);
    rows.first = reinterpret_cast<const char*>(strip.first + steps[s]);
    rows.second = reinterpret_cast<const char*>(strip.second + steps[s]);
    add(sums, rows, weights, weights + half, pairs);
    if (!job.odd) continue;
    rows.first += last, rows.second += last;
    add(sums, rows, weights + pairs * kPairBlock, weights + half + pairs * kPairBlock, 1);
  }
  if (piece.last) return finish(job, sums, strip.places, block * kPairBlock);
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; ++r) {
    _mm512_store_ps(piece.values + r * kPairBlock, sums.low[r]);
    _mm512_store_ps(piece.values + r * kPairBlock + 16, sums.high[r]);
  }
}

using RunStrip = void (*)(const PairTiles&, const Strip&, Index, const Piece&);
// Index: half of the rows.
template <Columns kColumns>
constexpr RunStrip kStrips[] = {nullptr,
                                run_strip<2, kColumns>,
                                run_strip<4, kColumns>,
                                run_strip<6, kColumns>,
                                run_strip<8, kColumns>,
                                run_strip<10, kColumns>,
                                run_strip<12, kColumns>,
                                run_strip<14, kColumns>};

const RunStrip* strips_of(const PairTiles& job, Index block) {
  return job.channels - block * kPairBlock > kPairBlock / 2 ? kStrips<Columns::kBoth>
                                                            : kStrips<Columns::kLow>;
}

// The wanted rows of a half.
struct Wanted {
  int begin, count;
};

PYCNN_INLINE Wanted wanted_rows(const Index* rows) {
  const __mmask8 low = _mm512_cmpge_epi64_mask(_mm512_loadu_si512(rows), _mm512_setzero_si512());
  const __mmask8 high =
      _mm512_cmpge_epi64_mask(_mm512_loadu_si512(rows + 8), _mm512_setzero_si512());
  const unsigned mask = low | static_cast<unsigned>(high) << 8;
  if (mask == 0) return {0, 0};
  const int begin = __builtin_ctz(mask);
  return {begin, 32 - __builtin_clz(mask) - begin};
}

// Calls f(half of the rows, strip).
template <class F>
PYCNN_INLINE void each_of_half(const PairTiles& job, const BFloat16* input, const Index* rows,
                               Wanted wanted, F f) {
  if (wanted.count == 0) return;
  // An odd number takes a neighbour along, which must be one of the half's rows.
  if (wanted.count % 2 == 1) {
    if (wanted.begin > 0) --wanted.begin;
    ++wanted.count;
  }
  input += wanted.begin * job.input_row, rows += wanted.begin;
  constexpr int kPart = kPairRows / 2;
  const int parts = wanted.count <= kMostRows ? 1 : 2;
  const int group = parts == 1 ? wanted.count / 2 : kPart / 2;
  for (int i = 0; i < parts; ++i, input += kPart * job.input_row, rows += kPart)
    f(group, Strip{input, input + group * job.input_row, {rows, rows + group}});
}

template <class F>
PYCNN_INLINE void each_strip(const PairTiles& job, Index tile, F f) {
  const BFloat16* const first = job.input + job.halves[2 * tile];
  const BFloat16* const second = job.input + job.halves[2 * tile + 1];
  const Index* const first_rows = job.rows + tile * kPairBlock;
  const Index* const second_rows = first_rows + kPairRows;
  const Wanted one = wanted_rows(first_rows), two = wanted_rows(second_rows);
  if (one.count == two.count && one.count > 0 && 2 * one.count <= kMostRows) {
    f(one.count, Strip{first + one.begin * job.input_row,
                       second + two.begin * job.input_row,
                       {first_rows + one.begin, second_rows + two.begin}});
    return;
  }
  each_of_half(job, first, first_rows, one, f);
  each_of_half(job, second, second_rows, two, f);
}

void run_tile(const PairTiles& job, Index tile, Index block) {
  const RunStrip* const run = strips_of(job, block);
  Upcoming nothing;
  const Piece all = {0, job.step_count, true, true, nullptr, &nothing};
  each_strip(job, tile, [&](int group, const Strip& strip) { run[group](job, strip, block, all); });
}

// ---- Weights of a block that do not stay near while strip after strip takes them: pieces of the
// steps, each by all strips, while the next one is fetched

constexpr Index kFarPairs = 1024;  // of a block
constexpr Index kPieceSteps = 16;
constexpr int kMostCells = 4;  // tiles times blocks

struct DeepStrip {
  int group;
  Strip strip;
  Index values;  // of the sums of all strips
};

void run_deep(const PairTiles& job, Index tile, Index tiles) {
  DeepStrip strips[4 * kMostCells];
  alignas(64) float values[kMostCells * kPairBlock * kPairBlock];
  Index count = 0, floats = 0;
  for (Index t = tile; t < tile + tiles; ++t)
    each_strip(job, t, [&](int group, const Strip& strip) {
      strips[count++] = {group, strip, floats};
      floats += 2 * group * kPairBlock;
    });
  if (count == 0) return;
  const Index blocks = kMostCells / tiles, step = 2 * job.pairs * kPairBlock;
  for (Index first = job.block_begin; first < job.block_end; first += blocks) {
    const Index end = first + blocks < job.block_end ? first + blocks : job.block_end;
    for (Index at = 0; at < job.step_count; at += kPieceSteps) {
      Upcoming upcoming;
      Piece piece = {at,      at + kPieceSteps, at == 0, at + kPieceSteps >= job.step_count,
                     nullptr, &upcoming};
      if (piece.last) piece.end = job.step_count;
      for (Index block = first; block < end; ++block) {
        const Index next = piece.last ? block + blocks : block;
        upcoming = {};
        if (next < job.block_end) {
          upcoming.row = reinterpret_cast<const char*>(weights_of(job, next) +
                                                       (piece.last ? 0 : piece.end * step));
          upcoming.each = (2 * job.pairs + count - 1) / count;
          upcoming.left = (piece.end - at) * 2 * job.pairs;
        }
        const RunStrip* const run = strips_of(job, block);
        for (Index i = 0; i < count; ++i) {
          piece.values =
              values + (block - first) * tiles * kPairBlock * kPairBlock + strips[i].values;
          run[strips[i].group](job, strips[i].strip, block, piece);
        }
      }
    }
  }
}

// One part of the steps.
void run_part(const PairTiles& job) {
  constexpr Index kLineFloats = 16;
  const UpcomingRows& rows = job.upcoming;
  const Index blocks = job.block_end - job.block_begin;
  Index strips = 0;
  for (Index tile = 0; tile < job.tiles; ++tile)
    each_strip(job, tile, [&](int, const Strip&) { ++strips; });
  Upcoming upcoming;
  upcoming.row = reinterpret_cast<const char*>(rows.from);
  upcoming.row_lines = (rows.count + kLineFloats - 1) / kLineFloats;
  upcoming.pitch = rows.pitch * static_cast<Index>(sizeof(float));
  upcoming.left = rows.rows * upcoming.row_lines;
  const Index calls = strips * blocks * job.step_count;
  upcoming.each = calls > 0 ? (upcoming.left + calls - 1) / calls : 0;
  for (Index block = job.block_begin; block < job.block_end; ++block) {
    const RunStrip* const run = strips_of(job, block);
    for (Index tile = 0; tile < job.tiles; ++tile) {
      Piece piece = {0, job.step_count, job.first_part, job.last_part, nullptr, &upcoming};
      piece.values =
          job.values + ((block - job.block_begin) * job.tiles + tile) * kPairBlock * kPairBlock;
      each_strip(job, tile, [&](int group, const Strip& strip) {
        run[group](job, strip, block, piece);
        piece.values += 2 * group * kPairBlock;
      });
    }
  }
}

void tiles(const PairTiles& job) {
  if (job.values) return run_part(job);
  if (job.blocks_first && job.step_count * job.pairs >= kFarPairs) {
    for (Index tile = 0; tile < job.tiles; tile += kMostCells)
      run_deep(job, tile, job.tiles - tile < kMostCells ? job.tiles - tile : kMostCells);
  } else if (job.blocks_first) {
    for (Index tile = 0; tile < job.tiles; ++tile)
      for (Index block = job.block_begin; block < job.block_end; ++block)
        run_tile(job, tile, block);
  } else {
    for (Index block = job.block_begin; block < job.block_end; ++block)
      for (Index tile = 0; tile < job.tiles; ++tile) run_tile(job, tile, block);
  }
}

// Eight rows of a block, a part of the steps.
void add_rows(const PairSums& job, const BFloat16* a, const BFloat16* b, Index pairs,
              bool accumulate, float* to) {
  const Index pitch = job.sums_pitch;
  const char* rows = reinterpret_cast<const char*>(a);
  const BFloat16 *low = b, *high = b + job.b_half;
  Sums<kSumRows> sums;
#pragma GCC unroll 8
  for (int r = 0; r < kSumRows; ++r) {
    sums.low[r] = accumulate ? _mm512_loadu_ps(to + r * pitch) : _mm512_setzero_ps();
    sums.high[r] = accumulate ? _mm512_loadu_ps(to + r * pitch + 16) : _mm512_setzero_ps();
  }
  for (Index pair = 0; pair < pairs; ++pair) {
    const __m512bh l = load(low), h = load(high);
#pragma GCC unroll 8
    for (int r = 0; r < kSumRows; ++r) {
      const __m512bh x = pair_at(rows + r * 4);
      sums.low[r] = _mm512_dpbf16_ps(sums.low[r], x, l);
      sums.high[r] = _mm512_dpbf16_ps(sums.high[r], x, h);
    }
    rows += kPairBlock * sizeof(BFloat16), low += kPairBlock, high += kPairBlock;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kSumRows; ++r) {
    _mm512_storeu_ps(to + r * pitch, sums.low[r]);
    _mm512_storeu_ps(to + r * pitch + 16, sums.high[r]);
  }
}

// Both operands of some steps stay in the first-level cache.
constexpr Index kNearSteps = 6;
constexpr Index kAllLines = INT64_MAX;  // may be fetched at once

void sums(const PairSums& job) {
  const Index visits = (job.steps + kNearSteps - 1) / kNearSteps;
  constexpr Index kStrips = kPairBlock / kSumRows;
  Fetcher fetcher(job, job.row_blocks * job.column_blocks * job.tap_count * visits * kStrips,
                  kAllLines);
  for (Index row = 0; row < job.row_blocks; ++row) {
    const BFloat16* a = job.a + 2 * row * job.a_half;
    const BFloat16* b = job.b;
    float* to = job.sums + row * job.sums_row;
    for (Index column = 0; column < job.column_blocks; ++column, b += 2 * job.b_half) {
      for (Index step = 0; step < job.steps; step += kNearSteps) {
        const Index steps = job.steps - step < kNearSteps ? job.steps - step : kNearSteps;
        for (Index tap = 0; tap < job.tap_count; ++tap)
          for (Index r = 0; r < kPairBlock; r += kSumRows) {
            fetcher.fetch();
            add_rows(job, a + r / kPairRows * job.a_half + step * kPairHalf + r % kPairRows * 2,
                     b + job.taps[tap] + step * kPairHalf, steps * job.pairs,
                     job.accumulate || step > 0, to + tap * job.sums_block + r * job.sums_pitch);
          }
      }
      to += job.tap_count * job.sums_block;
    }
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

// Two pixels' 32 channels as pairs: the first 16 of them, then the others.
PYCNN_INLINE void weave(const BFloat16* x, const BFloat16* y, BFloat16* low, BFloat16* high) {
  const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
  const __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(y);
  _mm512_storeu_si512(low, _mm512_permutex2var_epi16(a, first, b));
  _mm512_storeu_si512(high, _mm512_permutex2var_epi16(a, second, b));
}

constexpr int kWovenPairs = 4;  // lines in a row of each 16 channels

void interleave(const PixelPairs& job) {
  Index pair = 0;
  while (pair < job.pairs) {
    const BFloat16* const* pixels = job.pixels + 2 * pair;
    BFloat16* to = job.to + pair * kPairBlock;
    Index channel = 0, count = 1;
    if (pair + kWovenPairs <= job.pairs) {
      bool whole = true;
      for (int i = 0; i < 2 * kWovenPairs; ++i) whole &= pixels[i] != nullptr;
      if (whole) {
        count = kWovenPairs;
        const BFloat16* from[2 * kWovenPairs];
        for (int i = 0; i < 2 * kWovenPairs; ++i) from[i] = pixels[i] + job.first_channel;
        for (; channel + 32 <= job.channels; channel += 32, to += 2 * job.group_pitch)
#pragma GCC unroll 4
          for (int i = 0; i < kWovenPairs; ++i)
            weave(from[2 * i] + channel, from[2 * i + 1] + channel, to + i * kPairBlock,
                  to + job.group_pitch + i * kPairBlock);
      }
    }
    for (; channel < job.channels; channel += 16, to += job.group_pitch)
      for (Index i = 0; i < count; ++i)
        _mm512_storeu_si512(to + i * kPairBlock,
                            two_pixels(pixels + 2 * i, job.first_channel + channel,
                                       channels_from(job.channels, channel)));
    pair += count;
  }
}

PYCNN_INLINE __m512i rounded(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Columns follow one another in memory.
template <bool kFetch>
void pack_columns(const PairWeights& job) {
  const __mmask16 wanted = channels_from(job.columns, 0);
  for (Index pair = 0; pair < job.pairs; ++pair) {
    __m512 x[2];
    for (int i = 0; i < 2; ++i) {
      const Index e = 2 * pair + i;
      if (kFetch) __builtin_prefetch(job.upcoming + e * job.element_pitch, 0, 2);
      x[i] = _mm512_maskz_loadu_ps(e < job.elements ? wanted : 0, job.from + e * job.element_pitch);
    }
    _mm512_storeu_si512(job.to + pair * kPairBlock, woven(rounded(x[0], x[1])));
  }
}

// Elements follow one another in memory.
template <bool kFetch>
void pack_rows(const PairWeights& job) {
  const __mmask16 low = channels_from(job.elements, 0);
  const __mmask16 high = job.elements > 16 ? channels_from(job.elements, 16) : 0;
  __m512i x[16];
#pragma GCC unroll 16
  for (int c = 0; c < 16; ++c) {
    const bool valid = c < job.columns;
    const float* from = job.from + c * job.column_pitch;
    if (kFetch) {
      __builtin_prefetch(job.upcoming + c * job.column_pitch, 0, 2);
      __builtin_prefetch(job.upcoming + c * job.column_pitch + 16, 0, 2);
    }
    x[c] = rounded(_mm512_maskz_loadu_ps(valid ? low : 0, from),
                   _mm512_maskz_loadu_ps(valid ? high : 0, from + 16));
  }
  transpose_16x16(x);
#pragma GCC unroll 16
  for (int pair = 0; pair < 16; ++pair)
    if (pair < job.pairs) _mm512_storeu_si512(job.to + pair * kPairBlock, x[pair]);
}

void pack(const PairWeights& job) {
  const bool fetch = job.upcoming != nullptr;
  if (job.element_pitch == 1) return fetch ? pack_rows<true>(job) : pack_rows<false>(job);
  if (job.column_pitch == 1) return fetch ? pack_columns<true>(job) : pack_columns<false>(job);
  portable::kPairUnit.pack(job);
}

PYCNN_INLINE __mmask32 words(Index count) { return count >= 32 ? ~0u : (1u << count) - 1u; }

// As many pixels as fill a vector at a time, or else parts of one.
void spread(const PixelSpread& job) {
  const Index channels = job.channels, wide = channels + 1;
  if (wide > 32) {
    for (Index row = 0; row < job.rows; ++row)
      for (Index pixel = 0; pixel < job.pixels; ++pixel) {
        const BFloat16* from = job.from + row * job.from_row + pixel * channels;
        BFloat16* to = job.to + row * job.to_row + pixel * wide;
        for (Index c = 0; c < channels; c += 32) {
          const __mmask32 wanted = words(channels - c);
          _mm512_mask_storeu_epi16(to + c, wanted, _mm512_maskz_loadu_epi16(wanted, from + c));
        }
        to[channels] = {};
      }
    return;
  }
  alignas(64) std::int16_t places[32];
  __mmask32 filled = 0;
  for (int i = 0; i < 32; ++i) {
    const int pixel = i / static_cast<int>(wide), c = i % static_cast<int>(wide);
    places[i] = static_cast<std::int16_t>(pixel * channels + c);
    if (c < channels) filled |= 1u << i;
  }
  const __m512i order = _mm512_load_si512(places);
  const Index group = 32 / wide;
  for (Index row = 0; row < job.rows; ++row) {
    const BFloat16* from = job.from + row * job.from_row;
    BFloat16* to = job.to + row * job.to_row;
    for (Index pixel = 0; pixel < job.pixels; pixel += group) {
      const Index count = job.pixels - pixel < group ? job.pixels - pixel : group;
      const __m512i x = _mm512_maskz_loadu_epi16(words(count * channels), from);
      _mm512_mask_storeu_epi16(to, words(count * wide),
                               _mm512_maskz_permutexvar_epi16(filled, order, x));
      from += group * channels, to += group * wide;
    }
  }
}

}  // namespace

void transpose(const PixelPairs& job) {
  for (Index pair = 0; pair < job.pairs; pair += 16) {
    BFloat16* to = job.to + pair * kPairBlock;
    const BFloat16* const* const next = job.pixels + 2 * (pair + 16);
    PixelLines lines(next, pair + 16 < job.pairs ? 2 * 16 : 0, job.first_channel, job.channels);
    for (Index channel = 0; channel < job.channels; channel += 16, to += job.group_pitch) {
      lines.fetch(16);  // half a line of each of 32 pixels is read
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

const PairUnit kPairUnit = {tiles, sums,   interleave,           interleave,
                            pack,  spread, &avx512::kActivation, false};

}  // namespace pycnn::cpu::avx512_bf16
