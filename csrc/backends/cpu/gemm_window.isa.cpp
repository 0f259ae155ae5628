#include "backends/cpu/fetch_lines.isa.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/gemm_tile.isa.h"

// A tile is MR pixels by NV vectors of output channels. Its pixels are two groups, each with one
// uniform step, because two base pointers and three multiples of the step reach fourteen pixels
// without spilling address registers, and because two short image rows make one full tile.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

static_assert(kGemmLanes == kLanes);

constexpr int kMaxPixels = kVectorRegisters == 32 ? 14 : 6;
constexpr Index kBlock = 2 * kLanes;
constexpr Index kMinSteps = 8;  // of a tile whose lines are worth asking for
// Channels between which something is asked for, and those that are multiplied between two jumps:
// what else a core does then, counting and addresses, takes turns with multiplications on Intel's
// ports.
constexpr Index kStep = 8, kRows = 4;

Index tile_steps(const WindowTiles& job) { return job.tap_count * ((job.run + kStep - 1) / kStep); }

struct Tile {
  const char* first = nullptr;  // anchors of the two pixel groups
  const char* second = nullptr;
  const float* weights = nullptr;
  float* output_first = nullptr;
  float* output_second = nullptr;
  Index channel = 0;  // first output channel
  int lanes = 0;      // output channels of the tile
};

// Pixels and weights that are read later; a share of their lines is asked for with each step.
struct Ahead {
  Fetch pixels, weights;
};

// One step after the other over all sums, which stay in registers.
template <bool kFull, int MR, int NV>
PYCNN_INLINE void finish(const WindowTiles& job, const Tile& tile, Vec (&sum)[MR][NV]) {
  constexpr int kFirst = (MR + 1) / 2;
  auto output = [&](int i, int v) {
    return (i < kFirst ? tile.output_first + i * job.output_column
                       : tile.output_second + (i - kFirst) * job.output_column) +
           v * kLanes;
  };
  auto read = [&](const float* from, int v) {
    return kFull ? load(from) : load_partial(from, lanes_of(tile.lanes, v));
  };
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) {
    const Vec bias = job.bias ? read(job.bias + tile.channel + v * kLanes, v) : zero();
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) sum[i][v] = sum[i][v] + bias;
  }
  if (job.residual)
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v)
        sum[i][v] = sum[i][v] + read(job.residual + (output(i, v) - job.output), v);
  activate(job.activation, job.slope, sum);
  if (job.mask)
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v)
        sum[i][v] = masked(read(job.mask + (output(i, v) - job.output), v), sum[i][v]);
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      if constexpr (kFull)
        store(output(i, v), sum[i][v]);
      else
        store_partial(output(i, v), sum[i][v], lanes_of(tile.lanes, v));
    }
}

// Asks, pixel by pixel, for the lines that a tile will add to and write: all at once they would be
// in the way of those that it reads.
template <int MR, int NV>
PYCNN_INLINE void fetch_pixel(const WindowTiles& job, const Tile& tile, int i) {
  constexpr int kFirst = (MR + 1) / 2, kLineFloats = 16;
  const float* const at = i < kFirst ? tile.output_first + i * job.output_column
                                     : tile.output_second + (i - kFirst) * job.output_column;
#pragma GCC unroll 8
  for (int c = 0; c < NV * kLanes; c += kLineFloats) __builtin_prefetch(at + c, 1, 3);
  const float* const others[] = {job.residual, job.mask, job.measured};
  for (const float* const other : others) {
    if (other == nullptr || other == job.output) continue;
#pragma GCC unroll 8
    for (int c = 0; c < NV * kLanes; c += kLineFloats)
      __builtin_prefetch(other + (at - job.output) + c, 0, 3);
  }
}

// Products with a row of weights each.
template <int MR, int NV, int BLOCKS, int kCount>
PYCNN_INLINE void multiply_rows(const char* a, const char* b, Index step, Index step3, Index step5,
                                const float* w, Index block_pitch, Vec (&sum)[MR][NV * BLOCKS]) {
  constexpr int kFirst = (MR + 1) / 2;
  constexpr int kVectors = NV * BLOCKS;
#pragma GCC unroll 4
  for (int k = 0; k < kCount; ++k) {
    Vec wv[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      wv[v] = load(w + (v / NV) * block_pitch + (v % NV + k * NV) * kLanes);
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) {
      const int j = i < kFirst ? i : i - kFirst;
      const char* base = i < kFirst ? a : b;
      const Index at = j == 3 ? step3 : j == 5 ? step5 : j == 6 ? 2 * step3 : j * step;
      const Vec x = broadcast_at(base + at + k * Index{sizeof(float)});
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) add_product(sum[i][v], x, wv[v]);
    }
  }
}

// `blocks` > 1 puts several blocks of weights side by side: with few pixels one block alone has too
// few independent sums to hide the latency of the multiply-add.
template <int MR, int NV, int BLOCKS>
void tile_kernel(const WindowTiles& job, const Tile& tile, Ahead& ahead) {
  constexpr int kVectors = NV * BLOCKS;
  Vec sum[MR][kVectors];
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[i][v] = zero();

  Index step = job.input_column * Index{sizeof(float)}, step3 = 3 * step, step5 = 5 * step;
  const Index block_pitch = job.tap_count * job.run * kBlock;
  const float* w = tile.weights;
  const Index* tap = job.taps;
  const Index* const taps_end = tap + job.tap_count;
  const Index steps = tile_steps(job);
  const Index fetched = steps < kMinSteps ? 0 : (MR + steps - 1) / steps;  // pixels in each
  int pixel = 0;
  for (; tap != taps_end; ++tap) {
    const Index offset = *tap * Index{sizeof(float)};
    const char* a = tile.first + offset;
    const char* b = tile.second + offset;
    for (Index left = job.run; left > 0; left -= kStep) {
      for (Index n = 0; n < fetched && pixel < MR; ++n)
        fetch_pixel<MR, kVectors>(job, tile, pixel++);
      if (ahead.weights.lines > 0) PYCNN_ISA::step(ahead.weights);
      if (ahead.pixels.lines > 0) PYCNN_ISA::step(ahead.pixels);
      if (left >= kStep) {
#pragma GCC unroll 1
        for (Index k = 0; k < kStep; k += kRows) {
          multiply_rows<MR, NV, BLOCKS, kRows>(a, b, step, step3, step5, w, block_pitch, sum);
          a += kRows * sizeof(float), b += kRows * sizeof(float), w += kRows * NV * kLanes;
          // Keeps the compiler from turning each address into a variable of its own.
          asm volatile("" : "+r"(a), "+r"(b), "+r"(w), "+r"(step), "+r"(step3), "+r"(step5));
        }
      } else {
        for (Index k = 0; k < left; ++k) {
          multiply_rows<MR, NV, BLOCKS, 1>(a, b, step, step3, step5, w, block_pitch, sum);
          a += sizeof(float), b += sizeof(float), w += NV * kLanes;
          asm volatile("" : "+r"(a), "+r"(b), "+r"(w), "+r"(step), "+r"(step3), "+r"(step5));
        }
      }
    }
  }

  if (tile.lanes == kVectors * kLanes)
    finish<true>(job, tile, sum);
  else
    finish<false>(job, tile, sum);
}

using TileKernel = void (*)(const WindowTiles&, const Tile&, Ahead&);

// Index: pixels - 1.
constexpr TileKernel kOneVector[] = {
    tile_kernel<1, 1, 1>,  tile_kernel<2, 1, 1>,  tile_kernel<3, 1, 1>,  tile_kernel<4, 1, 1>,
    tile_kernel<5, 1, 1>,  tile_kernel<6, 1, 1>,
#if defined(__AVX512F__)
    tile_kernel<7, 1, 1>,  tile_kernel<8, 1, 1>,  tile_kernel<9, 1, 1>,  tile_kernel<10, 1, 1>,
    tile_kernel<11, 1, 1>, tile_kernel<12, 1, 1>, tile_kernel<13, 1, 1>, tile_kernel<14, 1, 1>,
#endif
};
constexpr TileKernel kTwoVectors[] = {
    tile_kernel<1, 2, 1>,  tile_kernel<2, 2, 1>,  tile_kernel<3, 2, 1>,  tile_kernel<4, 2, 1>,
    tile_kernel<5, 2, 1>,  tile_kernel<6, 2, 1>,
#if defined(__AVX512F__)
    tile_kernel<7, 2, 1>,  tile_kernel<8, 2, 1>,  tile_kernel<9, 2, 1>,  tile_kernel<10, 2, 1>,
    tile_kernel<11, 2, 1>, tile_kernel<12, 2, 1>, tile_kernel<13, 2, 1>, tile_kernel<14, 2, 1>,
#endif
};

// Blocks of weights from `block` on, for one group of tiles.
struct BlockGroup {
  const TileKernel* kernels;
  Index block;
  int lanes;
};

// Tiles of each block.
Index tile_count(const WindowTiles& job) {
  const Index of_row = (job.columns + kMaxPixels - 1) / kMaxPixels;
  const bool paired = 2 * job.columns <= kMaxPixels;
  return job.images * (paired ? job.rows / 2 + job.rows % 2 : job.rows * of_row);
}

// The weights of the blocks behind a group, as many as it has itself. They are wanted next, and far
// away where weights are large or images few: a share is asked for with each step.
Fetch fetch_next_weights(const WindowTiles& job, const BlockGroup& group) {
  const Index row = job.tap_count * job.run;
  const Index begin = group.block * kBlock + group.lanes;
  const Index end = job.wanted_end * kBlock;
  const Index channels = end < job.channels ? end : job.channels;
  const Index left = channels - begin;
  if (left <= 0) return {};
  const Index count = (left < group.lanes ? left : group.lanes) * row;
  return make_fetch({job.weights + begin * row, 1, count, 0}, tile_count(job) * tile_steps(job));
}

void run_tiles(const WindowTiles& job, const BlockGroup& group, Ahead& ahead) {
  ahead.weights = fetch_next_weights(job, group);
  Tile tile;
  tile.channel = group.block * kBlock;
  tile.lanes = group.lanes;
  tile.weights = job.weights + tile.channel * job.tap_count * job.run;
  auto run = [&](const float* first, const float* second, float* out, float* out_second,
                 Index pixels) {
    tile.first = reinterpret_cast<const char*>(first);
    tile.second = reinterpret_cast<const char*>(second);
    tile.output_first = out;
    tile.output_second = out_second;
    group.kernels[pixels - 1](job, tile, ahead);
  };
  const bool paired = 2 * job.columns <= kMaxPixels;
  const Index tiles = (job.columns + kMaxPixels - 1) / kMaxPixels;
  for (Index n = 0; n < job.images; ++n) {
    const float* in = job.input + n * job.input_image;
    float* out = job.output + n * job.output_image + tile.channel;
    Index row = 0;
    if (paired)
      for (; row + 2 <= job.rows; row += 2) {
        run(in, in + job.input_row, out, out + job.output_row, 2 * job.columns);
        in += 2 * job.input_row;
        out += 2 * job.output_row;
      }
    for (; row < job.rows; ++row) {
      // Tiles of nearly equal width: 15 columns are 8 and 7, not 14 and 1.
      Index column = 0;
      for (Index t = 0; t < tiles; ++t) {
        const Index end = job.columns * (t + 1) / tiles;
        const Index pixels = end - column, half = (pixels + 1) / 2;
        const float* from = in + column * job.input_column;
        float* to = out + column * job.output_column;
        run(from, from + half * job.input_column, to, to + half * job.output_column, pixels);
        column = end;
      }
      in += job.input_row;
      out += job.output_row;
    }
  }
}

// Rows that continue one another are one long row, and so are images.
void join_rows(WindowTiles& job) {
  if (job.columns == 1 || (job.input_row == job.columns * job.input_column &&
                           job.output_row == job.columns * job.output_column)) {
    if (job.columns == 1) {
      job.input_column = job.input_row;
      job.output_column = job.output_row;
    }
    job.columns *= job.rows;
    job.rows = 1;
  }
  if (job.rows > 1) return;
  if (job.columns == 1) {
    job.input_column = job.input_image;
    job.output_column = job.output_image;
  } else if (job.input_image != job.columns * job.input_column ||
             job.output_image != job.columns * job.output_column) {
    return;
  }
  job.columns *= job.images;
  job.images = 1;
}

}  // namespace

void window_tiles(const WindowTiles& original) {
  WindowTiles job = original;
  join_rows(job);
  const Index full_blocks = job.channels / kBlock;
  const bool few = job.images * job.rows == 1;
  Index block = job.block_begin;
  Ahead ahead;
  ahead.pixels =
      make_fetch(job.fetch, (job.block_end - job.block_begin) * tile_count(job) * tile_steps(job));
  while (block < job.block_end) {
    static constexpr TileKernel kFourBlocks[] = {tile_kernel<1, 2, 4>};
    static constexpr TileKernel kTwoBlocks[] = {tile_kernel<1, 2, 2>, tile_kernel<2, 2, 2>};
    const Index full_left = (job.block_end < full_blocks ? job.block_end : full_blocks) - block;
    if (few && job.columns == 1 && full_left >= 4 && kVectorRegisters == 32) {
      run_tiles(job, {kFourBlocks, block, static_cast<int>(4 * kBlock)}, ahead);
      block += 4;
    } else if (few && job.columns <= 2 && full_left >= 2) {
      run_tiles(job, {kTwoBlocks, block, static_cast<int>(2 * kBlock)}, ahead);
      block += 2;
    } else {
      const Index left = job.channels - block * kBlock;
      const int lanes = static_cast<int>(left < kBlock ? left : kBlock);
      run_tiles(job, {lanes <= kLanes ? kOneVector : kTwoVectors, block, lanes}, ahead);
      ++block;
    }
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
