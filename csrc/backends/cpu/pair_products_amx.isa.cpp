// The loops of pair_products.h with TDPBF16PS. Tiles 0 to 3 are the quarters of a block of sums, 4
// and 5 two halves of rows, 6 and 7 two halves of columns.
//
// What the order of instructions is for:
// - The sums of a block are stored one by one right before the next block's first product takes
//   their tile, and come back as bias: neither a store nor an initialisation waits for a product.
// - The rows of the block before that one are finished (residual, activation, rounding) between the
//   products, so that vector instructions cost no time of their own.
// - The path of tile stores falls asleep after half a microsecond without one and takes a quarter
//   of a microsecond to wake. Long sums store a tile that nobody reads now and then.
#include "backends/cpu/amx_tiles.isa.h"
#include "backends/cpu/fetch_pixels.isa.h"
#include "backends/cpu/pair_products.h"

#define PYCNN_MEMBER __attribute__((always_inline)) inline

namespace pycnn::cpu::amx {
namespace {

constexpr int kBlockFloats = 1024, kBlockRowBytes = 128;
constexpr int kQuarterFloats = kBlockFloats / 4;
constexpr int kQuarter[] = {0, 16, 512, 528};  // floats from the block's first
constexpr Index kKeepAlive = 16;               // steps, about 0.3 us

PYCNN_INLINE __m512 widened(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// 0 where the mask is not above zero; a NaN of it lets x through.
PYCNN_INLINE __m512 masked(__m256i mask, __m512 x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(widened(mask), _mm512_setzero_ps(), _CMP_NLE_UQ),
                             x);
}

// How rows of a block become pixels of the output.
struct Finish {
  const Index* rows;
  BFloat16* output;  // of the block's first channel
  const BFloat16* residual;
  const BFloat16* mask;
  __mmask32 wanted;
};

PYCNN_INLINE void finish_row(const Finish& to, BFloat16* nowhere, __m512 floor, const float* sums,
                             Index row) {
  const Index at = to.rows[row];
  __m512 low = _mm512_load_ps(sums + row * kPairBlock);
  __m512 high = _mm512_load_ps(sums + row * kPairBlock + 16);
  // Without a branch: rows that nobody wants come at no fixed places.
  BFloat16* output = to.output + at;
  output = at < 0 ? nowhere : output;
  if (to.residual) {
    const BFloat16* residual = to.residual + at;
    residual = at < 0 ? nowhere : residual;
    const __m512i bits = _mm512_maskz_loadu_epi16(to.wanted, residual);
    low = _mm512_add_ps(low, widened(_mm512_castsi512_si256(bits)));
    high = _mm512_add_ps(high, widened(_mm512_extracti64x4_epi64(bits, 1)));
  }
  // In this order a NaN comes through.
  low = _mm512_max_ps(floor, low);
  high = _mm512_max_ps(floor, high);
  if (to.mask) {
    const BFloat16* mask = to.mask + at;
    mask = at < 0 ? nowhere : mask;
    const __m512i bits = _mm512_maskz_loadu_epi16(to.wanted, mask);
    low = masked(_mm512_castsi512_si256(bits), low);
    high = masked(_mm512_extracti64x4_epi64(bits, 1), high);
  }
  _mm512_mask_storeu_epi16(output, to.wanted, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// Part `kPart` of four of kCount rows from `row` on.
template <int kCount, int kPart>
PYCNN_INLINE void finish_rows(const Finish& to, BFloat16* nowhere, __m512 floor, const float* sums,
                              Index row) {
#pragma GCC unroll 8
  for (int i = kCount * kPart / 4; i < kCount * (kPart + 1) / 4; ++i)
    finish_row(to, nowhere, floor, sums, row + i);
}

// The activations that are no maximum: all rows of a block at once, before they are finished.
void activate(const PairTiles& job, Finish& to, float* sums) {
  if (to.residual) {
    for (Index row = 0; row < kPairBlock; ++row) {
      if (to.rows[row] < 0) continue;
      const __m512i bits = _mm512_maskz_loadu_epi16(to.wanted, to.residual + to.rows[row]);
      float* p = sums + row * kPairBlock;
      _mm512_store_ps(p, _mm512_add_ps(_mm512_load_ps(p), widened(_mm512_castsi512_si256(bits))));
      p += 16;
      _mm512_store_ps(
          p, _mm512_add_ps(_mm512_load_ps(p), widened(_mm512_extracti64x4_epi64(bits, 1))));
    }
    to.residual = nullptr;
  }
  job.activation(sums, sums, kBlockFloats, job.slope);
}

constexpr Index kNoRows[kPairBlock] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                       -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                       -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

// One step of a block: two halves of rows, two of columns.
PYCNN_INLINE void add_products(const char* first, const char* second, Index row_bytes,
                               const char* weights, Index half_bytes) {
  _tile_loadd(6, weights, kTileRowBytes);
  _tile_loadd(4, first, row_bytes);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(7, weights + half_bytes, kTileRowBytes);
  _tile_dpbf16ps(1, 4, 7);
  _tile_loadd(5, second, row_bytes);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

constexpr Index kNearWeights = 1024 * 1024;  // bytes: half of L2

// What the rows of the next tile add or are masked by, in the order of its addresses: it comes
// while this tile is multiplied.
struct Others {
  const Index* rows = nullptr;  // null: nothing is wanted
  const BFloat16* residual;
  const BFloat16* mask;
  Index blocks;  // of a row, one after another; 0: each row has one line
  Index row = 0, block = 0;

  Others(const PairTiles& job, bool blocks_first)
      : residual(job.residual),
        mask(job.mask),
        blocks(blocks_first ? job.block_end - job.block_begin : 0) {
    const Index first = job.block_begin * kPairBlock;
    if (residual) residual += first;
    if (mask) mask += first;
  }

  // Before block `now` of `tile`.
  PYCNN_MEMBER void begin(const PairTiles& job, Index tile, Index now) {
    const bool more = (residual || mask) && tile + 1 < job.tiles;
    rows = more ? job.rows + (tile + 1) * kPairBlock : nullptr;
    if (!blocks) row = 0, block = now;
    if (blocks && now == 0) row = block = 0;
  }

  template <int kCount>
  PYCNN_MEMBER void fetch() {
    if (!rows) return;
    for (int i = 0; i < kCount; ++i) {
      const Index at = rows[row] + block * kPairBlock;
      if (rows[row] >= 0) {
        if (residual) __builtin_prefetch(residual + at, 0, 2);
        if (mask) __builtin_prefetch(mask + at, 0, 2);
      }
      if (!blocks)
        ++row;
      else if (++block == blocks)
        block = 0, ++row;
    }
  }
};

// The first half of rows alone.
PYCNN_INLINE void add_half(const char* first, Index row_bytes, const char* weights,
                           Index half_bytes) {
  _tile_loadd(6, weights, kTileRowBytes);
  _tile_loadd(4, first, row_bytes);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(7, weights + half_bytes, kTileRowBytes);
  _tile_dpbf16ps(1, 4, 7);
}

// kRows rows of an earlier block are finished in each of the first 32 / kRows steps.
template <int kRows>
void run_tiles(const PairTiles& job) {
  alignas(64) float sums[2][kBlockFloats] = {};
  alignas(64) float idle[kBlockFloats / 4];
  alignas(64) BFloat16 nowhere[kPairBlock] = {};
  const Index row_bytes = job.input_row * 2, half_bytes = job.pairs * kTileRowBytes;
  const Index steps_each = job.step_count, step_pitch = job.step_pitch;
  const Index blocks = job.block_end - job.block_begin, count = job.tiles * blocks;
  const __m512 floor = _mm512_set1_ps(job.relu ? 0.0f : -__builtin_inff());
  const Finish none = {kNoRows, nowhere, nullptr, nullptr, 0};
  Finish done = none, next = none;  // of the blocks before the last one, and of the last one
  // Weights that do not stay near would come anew with each tile.
  const bool blocks_first =
      job.blocks_first && blocks * steps_each * 2 * half_bytes <= kNearWeights;
  Others others(job, blocks_first);
  Index tile = 0, block = 0;
  for (Index i = 0; i < count; ++i) {
    float* const now = sums[i & 1];
    float* const ready = sums[(i & 1) ^ 1];
    if (job.activation) [[unlikely]]
      if (i >= 2) activate(job, done, ready);
    const Index channel = (job.block_begin + block) * kPairBlock;
    const float* const bias = job.bias + channel;
    const Index* const steps = job.steps + (job.block_begin + block) * step_pitch;
    const char* const first = reinterpret_cast<const char*>(job.input + job.halves[2 * tile]);
    const char* const second = reinterpret_cast<const char*>(job.input + job.halves[2 * tile + 1]);
    const char* weights = reinterpret_cast<const char*>(job.weights) +
                          (job.block_begin + block) * steps_each * 2 * half_bytes;
    others.begin(job, tile, block);
    {
      const Index at = steps[0] * 2;
      _tile_loadd(6, weights, kTileRowBytes);
      _tile_loadd(4, first + at, row_bytes);
      _tile_stored(0, now + kQuarter[0], kBlockRowBytes);
      _tile_loadd(0, bias, 0);
      _tile_dpbf16ps(0, 4, 6);
      finish_rows<kRows, 0>(done, nowhere, floor, ready, 0);
      _tile_loadd(7, weights + half_bytes, kTileRowBytes);
      _tile_stored(1, now + kQuarter[1], kBlockRowBytes);
      _tile_loadd(1, bias + 16, 0);
      _tile_dpbf16ps(1, 4, 7);
      finish_rows<kRows, 1>(done, nowhere, floor, ready, 0);
      _tile_loadd(5, second + at, row_bytes);
      _tile_stored(2, now + kQuarter[2], kBlockRowBytes);
      _tile_loadd(2, bias, 0);
      _tile_dpbf16ps(2, 5, 6);
      finish_rows<kRows, 2>(done, nowhere, floor, ready, 0);
      _tile_stored(3, now + kQuarter[3], kBlockRowBytes);
      _tile_loadd(3, bias + 16, 0);
      _tile_dpbf16ps(3, 5, 7);
      finish_rows<kRows, 3>(done, nowhere, floor, ready, 0);
      others.fetch<kRows>();
      weights += 2 * half_bytes;
    }
    Index step = 1;
    for (Index row = kRows; row < kPairBlock; row += kRows, ++step) {
      const Index at = steps[step] * 2;
      _tile_loadd(6, weights, kTileRowBytes);
      _tile_loadd(4, first + at, row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      finish_rows<kRows, 0>(done, nowhere, floor, ready, row);
      _tile_loadd(7, weights + half_bytes, kTileRowBytes);
      _tile_dpbf16ps(1, 4, 7);
      finish_rows<kRows, 1>(done, nowhere, floor, ready, row);
      _tile_loadd(5, second + at, row_bytes);
      _tile_dpbf16ps(2, 5, 6);
      finish_rows<kRows, 2>(done, nowhere, floor, ready, row);
      _tile_dpbf16ps(3, 5, 7);
      finish_rows<kRows, 3>(done, nowhere, floor, ready, row);
      others.fetch<kRows>();
      weights += 2 * half_bytes;
      if (kRows == 1 && step % kKeepAlive == 0) _tile_stored(6, idle, kTileRowBytes);
    }
    for (; step < steps_each; ++step) {
      const Index at = steps[step] * 2;
      add_products(first + at, second + at, row_bytes, weights, half_bytes);
      weights += 2 * half_bytes;
      if (kRows == 1 && step % kKeepAlive == 0) _tile_stored(6, idle, kTileRowBytes);
    }
    done = next;
    const Index left = job.channels - channel;
    next.rows = job.rows + tile * kPairBlock;
    next.output = job.output + channel;
    next.residual = job.residual ? job.residual + channel : nullptr;
    next.mask = job.mask ? job.mask + channel : nullptr;
    next.wanted = left >= kPairBlock ? ~0u : (1u << left) - 1u;
    if (blocks_first) {
      if (++block == blocks) block = 0, ++tile;
    } else {
      if (++tile == job.tiles) tile = 0, ++block;
    }
  }
  float* const now = sums[count & 1];
  float* const ready = sums[(count & 1) ^ 1];
  _tile_stored(0, now + kQuarter[0], kBlockRowBytes);
  _tile_stored(1, now + kQuarter[1], kBlockRowBytes);
  _tile_stored(2, now + kQuarter[2], kBlockRowBytes);
  _tile_stored(3, now + kQuarter[3], kBlockRowBytes);
  if (job.activation) {
    if (count >= 2) activate(job, done, ready);
    activate(job, next, now);
  }
  for (Index row = 0; row < kPairBlock; ++row) finish_row(done, nowhere, floor, ready, row);
  for (Index row = 0; row < kPairBlock; ++row) finish_row(next, nowhere, floor, now, row);
}

// ---- Results of at most 16 channels

// The 64 rows of two tiles by one half of columns: four accumulators share its load.
constexpr int kNarrowRows = 64, kNarrowFloats = kNarrowRows * kTileRows;

PYCNN_INLINE __mmask16 lanes_of(Index left) {
  return static_cast<__mmask16>(left >= 16 ? 0xFFFFu : (1u << left) - 1u);
}

PYCNN_INLINE __m512 elements(const BFloat16* from, __mmask16 wanted) {
  return widened(_mm256_maskz_loadu_epi16(wanted, from));
}

// The sums of wanted rows without what fills them up to 16. Those of a run follow one another in
// the output, too.
struct DenseSums {
  alignas(64) float sums[kNarrowFloats + kTileRows];
  Index ends[kNarrowRows + 1] = {};  // run i has [ends[i], ends[i + 1])
  Index shifts[kNarrowRows];         // results are so many elements further on
  Index runs = 0;
};

// `count`: rows, whole vectors of eight.
PYCNN_INLINE void add_rows(const Index* rows, Index count, const float* from, Index channels,
                           DenseSums& dense) {
  const __m512i step = _mm512_set1_epi64(channels);
  __m512i before = _mm512_set1_epi64(-1);
  std::uint64_t wanted = 0, follows = 0;
  for (Index row = 0; row < count; row += 8) {
    const __m512i at = _mm512_loadu_si512(rows + row);
    const __m512i last = _mm512_add_epi64(_mm512_alignr_epi64(at, before, 7), step);
    wanted |= std::uint64_t{_mm512_cmpge_epi64_mask(at, _mm512_setzero_si512())} << row;
    follows |= std::uint64_t{_mm512_cmpeq_epi64_mask(at, last)} << row;
    before = at;
  }
  follows &= wanted & wanted << 1;
  Index used = 0, runs = 0;
  for (std::uint64_t starts = wanted & ~follows; starts != 0; starts &= starts - 1, ++runs) {
    const int first = __builtin_ctzll(starts);
    // Rows behind the first one that follow, until one does not; no row follows the last one.
    const std::uint64_t others = first < 63 ? ~(follows >> (first + 1)) : 1;
    const int end = first + 1 + __builtin_ctzll(others);
    dense.shifts[runs] = rows[first] - used;
    for (int row = first; row < end; ++row, used += channels)
      // What lies beyond the channels is overwritten by the next row.
      _mm512_storeu_ps(dense.sums + used, _mm512_load_ps(from + row * kTileRows));
    dense.ends[runs + 1] = used;
  }
  dense.runs = runs;
}

PYCNN_INLINE void add_residual(const PairTiles& job, DenseSums& dense) {
  for (Index run = 0; run < dense.runs; ++run)
    for (Index i = dense.ends[run]; i < dense.ends[run + 1]; i += 16) {
      const __mmask16 wanted = lanes_of(dense.ends[run + 1] - i);
      const __m512 residual = elements(job.residual + dense.shifts[run] + i, wanted);
      float* const x = dense.sums + i;
      _mm512_mask_storeu_ps(x, wanted, _mm512_add_ps(_mm512_loadu_ps(x), residual));
    }
}

// As finish_row and activate for whole runs.
void finish_dense(const PairTiles& job, DenseSums& dense) {
  if (job.residual) add_residual(job, dense);
  if (job.activation) job.activation(dense.sums, dense.sums, dense.ends[dense.runs], job.slope);
  const __m512 floor = _mm512_set1_ps(job.relu ? 0.0f : -__builtin_inff());
  for (Index run = 0; run < dense.runs; ++run)
    for (Index i = dense.ends[run]; i < dense.ends[run + 1]; i += 16) {
      const __mmask16 wanted = lanes_of(dense.ends[run + 1] - i);
      const Index at = dense.shifts[run] + i;
      // In this order a NaN comes through.
      __m512 x = _mm512_max_ps(floor, _mm512_loadu_ps(dense.sums + i));
      if (job.mask) x = masked(_mm256_maskz_loadu_epi16(wanted, job.mask + at), x);
      _mm256_mask_storeu_epi16(job.output + at, wanted, (__m256i)_mm512_cvtneps_pbh(x));
    }
  dense.runs = 0;
}

// While the products of two tiles are under way, the sums of the two before are made dense, and
// those before them finished: no load then waits for a store that waits for products.
void run_narrow(const PairTiles& job) {
  alignas(64) float sums[2][kNarrowFloats];
  alignas(64) float idle[kBlockFloats / 4];
  DenseSums dense;
  const Index row_bytes = job.input_row * 2, half_bytes = job.pairs * kTileRowBytes;
  const Index* rows = kNoRows;  // of the two tiles before
  Index row_count = 0;
  Index number = 0;
  for (Index tile = 0; tile < job.tiles; tile += 2, ++number) {
    const bool both = tile + 1 < job.tiles;
    const Index* const halves = job.halves + 2 * tile;
    const Index next = both ? 2 : 0;
    const char* const a0 = reinterpret_cast<const char*>(job.input + halves[0]);
    const char* const a1 = reinterpret_cast<const char*>(job.input + halves[1]);
    const char* const a2 = reinterpret_cast<const char*>(job.input + halves[next]);
    const char* const a3 = reinterpret_cast<const char*>(job.input + halves[next + 1]);
    const char* weights = reinterpret_cast<const char*>(job.weights);
    float* const now = sums[number & 1];
    _tile_loadd(0, job.bias, 0);
    _tile_loadd(1, job.bias, 0);
    _tile_loadd(2, job.bias, 0);
    _tile_loadd(3, job.bias, 0);
    for (Index step = 0; step < job.step_count; ++step, weights += 2 * half_bytes) {
      const Index at = job.steps[step] * 2;
      _tile_loadd(6, weights, kTileRowBytes);
      _tile_loadd(4, a0 + at, row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, a1 + at, row_bytes);
      _tile_dpbf16ps(1, 5, 6);
      _tile_loadd(4, a2 + at, row_bytes);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(5, a3 + at, row_bytes);
      _tile_dpbf16ps(3, 5, 6);
      if ((step + 1) % kKeepAlive == 0) _tile_stored(6, idle, kTileRowBytes);
    }
    finish_dense(job, dense);
    const float* const before = sums[(number & 1) ^ 1];
    add_rows(rows, row_count, before, job.channels, dense);
    _tile_stored(0, now, kTileRowBytes);
    _tile_stored(1, now + kQuarterFloats, kTileRowBytes);
    _tile_stored(2, now + 2 * kQuarterFloats, kTileRowBytes);
    _tile_stored(3, now + 3 * kQuarterFloats, kTileRowBytes);
    rows = job.rows + tile * kPairBlock;
    row_count = both ? kNarrowRows : kPairBlock;
  }
  finish_dense(job, dense);
  const float* const last = sums[(number & 1) ^ 1];
  add_rows(rows, row_count, last, job.channels, dense);
  finish_dense(job, dense);
}

// One block of one tile, a part of its steps: such sums wait for memory, so each block is finished
// on its own. kBoth: the tile has rows in its second half.
template <bool kBoth>
void run_part(const PairTiles& job, Index block, Index tile, float* values) {
  const Index row_bytes = job.input_row * 2, half_bytes = job.pairs * kTileRowBytes;
  const Index channel = block * kPairBlock;
  const Index* const steps = job.steps + block * job.step_pitch;
  const char* const first = reinterpret_cast<const char*>(job.input + job.halves[2 * tile]);
  const char* const second = reinterpret_cast<const char*>(job.input + job.halves[2 * tile + 1]);
  const char* weights =
      reinterpret_cast<const char*>(job.weights) + block * job.step_count * 2 * half_bytes;
  if (job.first_part) {
    const float* const bias = job.bias + channel;
    _tile_loadd(0, bias, 0);
    _tile_loadd(1, bias + 16, 0);
    if constexpr (kBoth) {
      _tile_loadd(2, bias, 0);
      _tile_loadd(3, bias + 16, 0);
    }
  } else {
    _tile_loadd(0, values + kQuarter[0], kBlockRowBytes);
    _tile_loadd(1, values + kQuarter[1], kBlockRowBytes);
    if constexpr (kBoth) {
      _tile_loadd(2, values + kQuarter[2], kBlockRowBytes);
      _tile_loadd(3, values + kQuarter[3], kBlockRowBytes);
    }
  }
  for (Index step = 0; step < job.step_count; ++step, weights += 2 * half_bytes) {
    const Index at = steps[step] * 2;
    if constexpr (kBoth)
      add_products(first + at, second + at, row_bytes, weights, half_bytes);
    else
      add_half(first + at, row_bytes, weights, half_bytes);
  }
  _tile_stored(0, values + kQuarter[0], kBlockRowBytes);
  _tile_stored(1, values + kQuarter[1], kBlockRowBytes);
  if constexpr (kBoth) {
    _tile_stored(2, values + kQuarter[2], kBlockRowBytes);
    _tile_stored(3, values + kQuarter[3], kBlockRowBytes);
  }
  if (!job.last_part) return;
  alignas(64) BFloat16 nowhere[kPairBlock] = {};
  const Index left = job.channels - channel;
  Finish to = {job.rows + tile * kPairBlock, job.output + channel,
               job.residual ? job.residual + channel : nullptr,
               job.mask ? job.mask + channel : nullptr,
               left >= kPairBlock ? ~0u : (1u << left) - 1u};
  if (!kBoth)  // the activation takes a whole block
    for (float* p = values + kQuarter[2]; job.activation && p < values + kBlockFloats; p += 16)
      _mm512_store_ps(p, _mm512_setzero_ps());
  if (job.activation) activate(job, to, values);
  const __m512 floor = _mm512_set1_ps(job.relu ? 0.0f : -__builtin_inff());
  constexpr Index kRows = kBoth ? kPairBlock : kTileRows;
  for (Index row = 0; row < kRows; ++row) finish_row(to, nowhere, floor, values, row);
}

void run_parts(const PairTiles& job) {
  const Index blocks = job.block_end - job.block_begin;
  for (Index block = 0; block < blocks; ++block)
    for (Index tile = 0; tile < job.tiles; ++tile) {
      float* const values = job.values + (block * job.tiles + tile) * kBlockFloats;
      // A last half that stands twice has nobody's rows the second time.
      if (job.halves[2 * tile] != job.halves[2 * tile + 1])
        run_part<true>(job, job.block_begin + block, tile, values);
      else
        run_part<false>(job, job.block_begin + block, tile, values);
    }
}

void tiles(const PairTiles& job) {
  if (job.tiles * (job.block_end - job.block_begin) == 0) return;
  configure(job.pairs);
  if (job.values) {
    run_parts(job);
    _tile_release();
    return;
  }
  if (job.channels <= kTileRows)
    run_narrow(job);
  else if (job.step_count >= 32)
    run_tiles<1>(job);
  else if (job.step_count >= 16)
    run_tiles<2>(job);
  else if (job.step_count >= 8)
    run_tiles<4>(job);
  else if (job.step_count >= 4)
    run_tiles<8>(job);
  else if (job.step_count >= 2)
    run_tiles<16>(job);
  else
    run_tiles<32>(job);
  _tile_release();
}

// Some steps of a block's sums, `to`; the sums before them, `last`, are stored meanwhile. A block
// that goes on where it is stays in its tiles.
void add_sums(const PairSums& job, const BFloat16* a, const BFloat16* b, Index steps, bool fresh,
              float* to, float* last, Index last_bytes) {
  alignas(64) static const float kZeros[kTileRows] = {};
  const BFloat16* a_second = a + job.a_half;
  const BFloat16* b_second = b + job.b_half;
  const Index row_bytes = job.sums_pitch * static_cast<Index>(sizeof(float));
  Index step = 0;
  if (to != last) {
    float* const last_lower = last + last_bytes / static_cast<Index>(sizeof(float)) * kTileRows;
    const float* const from = fresh ? kZeros : to;
    const Index right = fresh ? 0 : kTileRows, lower = fresh ? 0 : kTileRows * job.sums_pitch;
    const Index from_bytes = fresh ? 0 : row_bytes;
    _tile_loadd(6, b, kTileRowBytes);
    _tile_loadd(4, a, kTileRowBytes);
    _tile_stored(0, last, last_bytes);
    _tile_loadd(0, from, from_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b_second, kTileRowBytes);
    _tile_stored(1, last + kTileRows, last_bytes);
    _tile_loadd(1, from + right, from_bytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a_second, kTileRowBytes);
    _tile_stored(2, last_lower, last_bytes);
    _tile_loadd(2, from + lower, from_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_stored(3, last_lower + kTileRows, last_bytes);
    _tile_loadd(3, from + lower + right, from_bytes);
    _tile_dpbf16ps(3, 5, 7);
    step = 1;
  }
  for (; step < steps; ++step) {
    const Index at = step * kPairHalf;
    _tile_loadd(6, b + at, kTileRowBytes);
    _tile_loadd(4, a + at, kTileRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b_second + at, kTileRowBytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a_second + at, kTileRowBytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// Steps of one visit of a sum. What all taps of a block multiply stays in the first-level cache,
// and so do the rows that meet many columns.
constexpr Index kTapSteps = 8, kSingleSteps = 16;
constexpr Index kStepLines = 4;  // that are fetched in a step: for more, products would wait

void sums(const PairSums& job) {
  if (job.row_blocks * job.column_blocks * job.tap_count * job.steps == 0) return;
  configure(job.pairs);
  alignas(64) float nowhere[kBlockFloats];
  float* last = nowhere;
  Index last_bytes = kBlockRowBytes;
  const Index near = job.tap_count > 1 ? kTapSteps : kSingleSteps;
  const Index visits = (job.steps + near - 1) / near;
  Fetcher fetcher(job, job.row_blocks * job.column_blocks * job.tap_count * visits,
                  near * kStepLines);
  // Some steps of a block and its taps.
  auto add = [&](const BFloat16* a, const BFloat16* b, Index step, float* to)
      __attribute__((always_inline)) {
    const Index left = job.steps - step, steps = left < near ? left : near;
    const bool fresh = !job.accumulate && step == 0;
    for (Index tap = 0; tap < job.tap_count; ++tap, to += job.sums_block) {
      fetcher.fetch();
      add_sums(job, a + step * kPairHalf, b + job.taps[tap] + step * kPairHalf, steps, fresh, to,
               last, last_bytes);
      last = to, last_bytes = job.sums_pitch * static_cast<Index>(sizeof(float));
    }
  };
  for (Index row = 0; row < job.row_blocks; ++row) {
    const BFloat16* const a = job.a + 2 * row * job.a_half;
    float* const to = job.sums + row * job.sums_row;
    const Index block = job.tap_count * job.sums_block;
    if (job.tap_count > 1) {
      for (Index column = 0; column < job.column_blocks; ++column)
        for (Index step = 0; step < job.steps; step += near)
          add(a, job.b + 2 * column * job.b_half, step, to + column * block);
    } else {
      for (Index step = 0; step < job.steps; step += near)
        for (Index column = 0; column < job.column_blocks; ++column)
          add(a, job.b + 2 * column * job.b_half, step, to + column * block);
    }
  }
  float* const lower = last + last_bytes / static_cast<Index>(sizeof(float)) * kTileRows;
  _tile_stored(0, last, last_bytes);
  _tile_stored(1, last + kTileRows, last_bytes);
  _tile_stored(2, lower, last_bytes);
  _tile_stored(3, lower + kTileRows, last_bytes);
  _tile_release();
}

void rows(const PixelPairs& job) { avx512_bf16::transpose(job); }
void columns(const PixelPairs& job) { avx512_bf16::kPairUnit.columns(job); }
void pack(const PairWeights& job) { avx512_bf16::kPairUnit.pack(job); }
void spread(const PixelSpread& job) { avx512_bf16::kPairUnit.spread(job); }

}  // namespace

const PairUnit kPairUnit = {tiles, sums, rows, columns, pack, spread, &avx512::kActivation, true};

}  // namespace pycnn::cpu::amx
