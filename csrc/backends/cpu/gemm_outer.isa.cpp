#include "backends/cpu/gemm.h"
#include "backends/cpu/simd.isa.h"

// Weight gradients: a tile of MR scalars times NV vectors is summed over pixels. The scalars come
// as two runs of neighbours, so nothing needs transposing first.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr int kMaxScalars = kVectorRegisters == 32 ? 14 : 6;
static_assert(kGemmScalars == kMaxScalars);
constexpr Index kBlock = 2 * kLanes;

template <bool kFull>
PYCNN_INLINE Vec load_lanes(const float* p, int n) {
  return kFull ? load(p) : load_partial(p, n);
}
template <bool kFull>
PYCNN_INLINE void store_lanes(float* p, Vec v, int n) {
  if constexpr (kFull)
    store(p, v);
  else
    store_partial(p, v, n);
}

// Only the last vector may be partial: `tail` lanes of it.
template <int MR, int NV, bool kFull>
void tile_kernel(const OuterTiles& job, const float* a, const float* b, float* c, int tail) {
  Vec sum[MR][NV];
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) {
    // What is added to in the end comes near in the meantime.
    if (job.accumulate) __builtin_prefetch(c + i * job.c_pitch, 1);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sum[i][v] = zero();
  }
  for (Index row = 0; row < job.rows; ++row) {
    const float* x = a;
    const float* y = b;
    for (Index column = 0; column < job.columns; ++column) {
      Vec yv[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v)
        yv[v] = v + 1 < NV ? load(y + v * kLanes) : load_lanes<kFull>(y + v * kLanes, tail);
#pragma GCC unroll 14
      for (int i = 0; i < MR; ++i) {
        const Vec xv = broadcast(x[i]);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sum[i][v] = fma(xv, yv[v], sum[i][v]);
      }
      x += job.a_column;
      y += job.b_column;
    }
    a += job.a_row;
    b += job.b_row;
  }
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      float* to = c + i * job.c_pitch + v * kLanes;
      const bool full = v + 1 < NV;
      Vec x = sum[i][v];
      if (job.accumulate) x = x + (full ? load(to) : load_lanes<kFull>(to, tail));
      if (full)
        store(to, x);
      else
        store_lanes<kFull>(to, x, tail);
    }
}

using TileKernel = void (*)(const OuterTiles&, const float*, const float*, float*, int);

template <int NV, bool kFull>
struct Kernels {
  static constexpr TileKernel kList[] = {
      tile_kernel<1, NV, kFull>,  tile_kernel<2, NV, kFull>,  tile_kernel<3, NV, kFull>,
      tile_kernel<4, NV, kFull>,  tile_kernel<5, NV, kFull>,  tile_kernel<6, NV, kFull>,
#if defined(__AVX512F__)
      tile_kernel<7, NV, kFull>,  tile_kernel<8, NV, kFull>,  tile_kernel<9, NV, kFull>,
      tile_kernel<10, NV, kFull>, tile_kernel<11, NV, kFull>, tile_kernel<12, NV, kFull>,
      tile_kernel<13, NV, kFull>, tile_kernel<14, NV, kFull>,
#endif
  };
};

// c fits one tile.
void run_tile(const OuterTiles& job) {
  const bool two = job.n > kLanes;
  const Index tail = two ? job.n - kLanes : job.n;
  const bool full = tail == kLanes;
  const TileKernel* kernels = two ? (full ? Kernels<2, true>::kList : Kernels<2, false>::kList)
                                  : (full ? Kernels<1, true>::kList : Kernels<1, false>::kList);
  kernels[job.m - 1](job, job.a, job.b, job.c, static_cast<int>(tail));
}

// Cuts c into nearly equal runs of rows.
template <class F>
PYCNN_INLINE void for_each_part(const OuterTiles& job, F f) {
  const Index parts = (job.m + kMaxScalars - 1) / kMaxScalars;
  Index i = 0;
  for (Index part = 0; part < parts; ++part) {
    const Index end = job.m * (part + 1) / parts;
    OuterTiles tile = job;
    tile.a += i, tile.c += i * job.c_pitch, tile.m = end - i;
    f(tile);
    i = end;
  }
}

// Cuts c into blocks of columns.
template <class F>
PYCNN_INLINE void for_each_block(const OuterTiles& job, F f) {
  for (Index j = 0; j < job.n; j += kBlock) {
    OuterTiles tile = job;
    tile.b += j, tile.c += j, tile.n = job.n - j < kBlock ? job.n - j : kBlock;
    f(tile);
  }
}

// A pixel of a block, of which there are `channels` left.
PYCNN_INLINE void copy_pixel(const float* from, Index channels, float* to) {
  if (channels >= kBlock) {
    store(to, load(from));
    store(to + kLanes, load(from + kLanes));
    return;
  }
  for (Index i = 0; i < channels; i += kLanes) {
    const int lanes = static_cast<int>(channels - i < kLanes ? channels - i : kLanes);
    store(to + i, load_partial(from + i, lanes));
  }
}

// How many pixels of a source come near before they are multiplied.
constexpr Index kAhead = 24;

// Multiplies a whole tile and copies on the way what is read from its source: the copies of a
// source cost nothing while the multiplications hold the core back, and its lines come from memory
// in the meantime. `next_a` and `next_b` follow the source's last pixels.
template <int NV, bool kCopyA, bool kCopyB>
void copying_kernel(const PanelTiles& job, const float* a, const float* b, float* panel,
                    float* block, const float* next_a, const float* next_b, float* c) {
  Vec sum[kMaxScalars][NV];
#pragma GCC unroll 14
  for (int i = 0; i < kMaxScalars; ++i) {
    if (job.accumulate) __builtin_prefetch(c + i * job.c_pitch, 1);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sum[i][v] = zero();
  }
  const Index a_column = kCopyA ? job.a_column : kMaxScalars;
  const Index b_column = kCopyB ? job.b_column : kBlock;
  const float* x = kCopyA ? a : panel;
  const float* y = kCopyB ? b : block;
  auto multiply = [&](Index pixels, const float* near_a, const float* near_b) {
    for (Index pixel = 0; pixel < pixels; ++pixel) {
      Vec yv[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        yv[v] = load(y + v * kLanes);
        if (!kCopyB) continue;
        store(block + v * kLanes, yv[v]);
        __builtin_prefetch(near_b + v * kLanes, 0, 2);
      }
      if constexpr (kCopyA) {
#pragma GCC unroll 2
        for (int v = 0; v < kMaxScalars; v += kLanes) {
          constexpr int kRest = kMaxScalars % kLanes;
          const bool full = v + kLanes <= kMaxScalars;
          // Beyond the panel it is overwritten by the next pixel, or the next panel.
          store(panel + v, full ? load(x + v) : load_partial(x + v, kRest));
        }
        __builtin_prefetch(near_a, 0, 2);
        __builtin_prefetch(near_a + kMaxScalars - 1, 0, 2);
      }
#pragma GCC unroll 14
      for (int i = 0; i < kMaxScalars; ++i) {
        const Vec xv = broadcast(x[i]);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sum[i][v] = fma(xv, yv[v], sum[i][v]);
      }
      x += a_column, y += b_column;
      if constexpr (kCopyA) panel += kMaxScalars, near_a += a_column;
      if constexpr (kCopyB) block += kBlock, near_b += b_column;
    }
  };
  const Index ahead = job.columns < kAhead ? job.columns : kAhead;
  for (Index row = 1; row <= job.rows; ++row) {
    multiply(job.columns - ahead, x + ahead * a_column, y + ahead * b_column);
    const bool last = row == job.rows;
    const float* row_a = a + row * job.a_row;
    const float* row_b = b + row * job.b_row;
    multiply(ahead, last ? next_a : row_a, last ? next_b : row_b);
    if (kCopyA) x = row_a;
    if (kCopyB) y = row_b;
  }
#pragma GCC unroll 14
  for (int i = 0; i < kMaxScalars; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      float* to = c + i * job.c_pitch + v * kLanes;
      store(to, job.accumulate ? sum[i][v] + load(to) : sum[i][v]);
    }
}

template <class F>
PYCNN_INLINE void for_each_pixel(Index rows, Index columns, const float* from, Index row_step,
                                 Index column_step, F f) {
  for (Index row = 0; row < rows; ++row, from += row_step) {
    const float* pixel = from;
    for (Index column = 0; column < columns; ++column, pixel += column_step) f(pixel);
  }
}

// The last channels; what a vector holds beyond them is the next pixel's, or to spare.
void copy_panel(const PanelTiles& job, const float* from, Index channels, float* to) {
  for_each_pixel(job.rows, job.columns, from, job.a_row, job.a_column, [&](const float* pixel) {
    for (Index v = 0; v < channels; v += kLanes) {
      const Index rest = channels - v;
      store(to + v,
            rest >= kLanes ? load(pixel + v) : load_partial(pixel + v, static_cast<int>(rest)));
    }
    to += kMaxScalars;
  });
}

void copy_block(const PanelTiles& job, const float* from, Index channels) {
  float* to = job.block;
  for_each_pixel(job.rows, job.columns, from, job.b_row, job.b_column, [&](const float* pixel) {
    copy_pixel(pixel, channels, to);
    to += kBlock;
  });
}

// A tile of which nothing is copied yet, or one side alone.
template <int NV>
void run_copying(const PanelTiles& job, bool copy_a, bool copy_b, const float* a, const float* b,
                 float* panel, const float* next_a, const float* next_b, float* c) {
  const auto kernel = !copy_b   ? copying_kernel<NV, true, false>
                      : !copy_a ? copying_kernel<NV, false, true>
                                : copying_kernel<NV, true, true>;
  kernel(job, a, b, panel, job.block, next_a, next_b, c);
}

}  // namespace

void outer_tiles(const OuterTiles& job) {
  // One side stays in the nearest cache while the other passes by. With few pixels it is b, so that
  // c is written row by row.
  constexpr Index kNear = 32 * 1024;
  if (job.rows * job.columns * job.n <= kNear)
    for_each_part(job, [&](const OuterTiles& part) { for_each_block(part, run_tile); });
  else
    for_each_block(job, [&](const OuterTiles& block) { for_each_part(block, run_tile); });
}

void panel_tiles(const PanelTiles& job) {
  const Index pixels = job.rows * job.columns;
  auto behind = [&](const float* from, Index row, Index column) {
    return from + (job.rows > 1 ? job.rows * row : job.columns * column);
  };
  OuterTiles tile;
  tile.rows = 1, tile.columns = pixels;
  tile.a_column = kMaxScalars, tile.b_column = kBlock;
  tile.c_pitch = job.c_pitch, tile.accumulate = job.accumulate;
  for (Index j = 0; j < job.n; j += kBlock) {
    tile.n = job.n - j < kBlock ? job.n - j : kBlock;
    tile.b = job.block;
    const float* b = job.b + j;
    const float* next_b = j + kBlock < job.n ? b + kBlock : behind(job.b, job.b_row, job.b_column);
    float* panel = job.panels;
    for (Index i = 0; i < job.m; i += kMaxScalars, panel += pixels * kMaxScalars) {
      tile.m = job.m - i < kMaxScalars ? job.m - i : kMaxScalars;
      tile.c = job.c + i * job.c_pitch + j;
      const bool copy_a = job.copy_a && j == 0, copy_b = job.copy_b && i == 0;
      const bool whole = tile.m == kMaxScalars && tile.n % kLanes == 0;
      if (whole && (copy_a || copy_b)) {
        const float* a = job.a + i;
        const float* next_a =
            i + kMaxScalars < job.m ? a + kMaxScalars : behind(job.a, job.a_row, job.a_column);
        (tile.n == kBlock ? run_copying<2> : run_copying<1>)(job, copy_a, copy_b, a, b, panel,
                                                             next_a, next_b, tile.c);
        continue;
      }
      if (copy_a) copy_panel(job, job.a + i, tile.m, panel);
      if (copy_b) copy_block(job, b, tile.n);
      tile.a = panel;
      run_tile(tile);
    }
  }
}

void block_pixels(const PixelBlocks& job) {
  float* to = job.to;
  for (Index c = 0; c < job.channels; c += kBlock)
    for (Index row = 0; row < job.rows; ++row) {
      const float* from = job.from + row * job.row + c;
      for (Index column = 0; column < job.columns; ++column, from += job.column, to += kBlock)
        copy_pixel(from, job.channels - c, to);
    }
}

void column_sums(const ColumnSums& job) {
  for (Index j = 0; j < job.n; j += kLanes) {
    const int lanes = static_cast<int>(job.n - j < kLanes ? job.n - j : kLanes);
    // Four sums that do not wait for one another.
    Vec sum[4] = {zero(), zero(), zero(), zero()};
    for (Index row = 0; row < job.rows; ++row) {
      const float* y = job.b + row * job.b_row + j;
      Index column = 0;
      for (; column + 4 <= job.columns; column += 4)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i, y += job.b_column) sum[i] = sum[i] + load_partial(y, lanes);
      for (; column < job.columns; ++column, y += job.b_column)
        sum[0] = sum[0] + load_partial(y, lanes);
    }
    Vec total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    if (job.accumulate) total = load_partial(job.sums + j, lanes) + total;
    store_partial(job.sums + j, total, lanes);
  }
}

void scatter_columns(const ScatterColumns& job) {
  // Full loads and stores of the output: masked ones are not forwarded from recent stores.
  const float* from = job.columns;
  float* pixel = job.output;
  for (Index p = 0; p < job.pixels; ++p, pixel += job.output_column)
    for (Index t = 0; t < job.taps; ++t, from += job.run) {
      float* to = pixel + job.offsets[t];
      Index i = 0;
      for (; i + kLanes <= job.run; i += kLanes) store(to + i, load(to + i) + load(from + i));
      if (const int rest = static_cast<int>(job.run - i))
        store(to + i, load(to + i) + load_partial(from + i, rest));
    }
}

void add_floats(float* to, const float* from, Index count) {
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load(to + i) + load(from + i));
  const int rest = static_cast<int>(count - i);
  if (rest > 0)
    store_partial(to + i, load_partial(to + i, rest) + load_partial(from + i, rest), rest);
}

}  // namespace pycnn::cpu::PYCNN_ISA
