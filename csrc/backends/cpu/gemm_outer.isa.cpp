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

// Goes through pixels, row by row.
struct Walk {
  const PixelBlocks& pixels;
  const float* at = pixels.from;
  Index done = 0, column = 0;
};

template <class F>
PYCNN_INLINE void walk(Walk& state, Index end, F f) {
  const PixelBlocks& p = state.pixels;
  while (state.done < end) {
    const Index left = p.columns - state.column;
    const Index count = end - state.done < left ? end - state.done : left;
    for (Index i = 0; i < count; ++i, state.at += p.column) f(state.at);
    state.done += count, state.column += count;
    if (count == left) state.column = 0, state.at += p.row - p.columns * p.column;
  }
}

// What panel_tiles does besides, in equal steps. A pixel comes near some pixels before it is
// copied.
struct Meanwhile {
  Walk copy, copy_fetch, fetch;
  Index steps, done = 0;
};

PYCNN_INLINE void step(Meanwhile& work) {
  constexpr Index kAhead = 24;
  ++work.done;
  const PixelBlocks& copy = work.copy.pixels;
  const Index channels = copy.channels, count = copy.rows * copy.columns;
  const Index end = count * work.done / work.steps;
  const Index near = end + kAhead < count ? end + kAhead : count;
  float* to = copy.to + work.copy.done * kBlock;
  if (channels == kBlock) {
    walk(work.copy_fetch, near, [](const float* from) {
      __builtin_prefetch(from);
      __builtin_prefetch(from + kBlock - 1);
    });
    walk(work.copy, end, [&](const float* from) {
      store(to, load(from));
      store(to + kLanes, load(from + kLanes));
      to += kBlock;
    });
  } else {
    walk(work.copy, end, [&](const float* from) {
      copy_pixel(from, channels, to);
      to += kBlock;
    });
  }
  const PixelBlocks& fetch = work.fetch.pixels;
  walk(work.fetch, fetch.rows * fetch.columns * work.done / work.steps, [&](const float* from) {
    constexpr Index kLine = 16;
    for (Index i = 0; i < fetch.channels; i += kLine) __builtin_prefetch(from + i);
  });
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

void panel_tiles(const OuterTiles& job) {
  OuterTiles tile = job;
  tile.rows = 1, tile.a_column = kMaxScalars, tile.b_column = kBlock;
  const Index tiles = (job.m + kMaxScalars - 1) / kMaxScalars * ((job.n + kBlock - 1) / kBlock);
  Meanwhile meanwhile{{job.copy}, {job.copy}, {job.fetch}, tiles};
  for (Index j = 0; j < job.n; j += kBlock, tile.b += job.columns * kBlock) {
    tile.n = job.n - j < kBlock ? job.n - j : kBlock;
    tile.a = job.a, tile.c = job.c + j;
    for (Index i = 0; i < job.m; i += kMaxScalars) {
      tile.m = job.m - i < kMaxScalars ? job.m - i : kMaxScalars;
      step(meanwhile);
      run_tile(tile);
      tile.a += job.columns * kMaxScalars, tile.c += kMaxScalars * job.c_pitch;
    }
  }
}

void panel_pixels(const PixelBlocks& job) {
  constexpr int kVectors = (kMaxScalars + kLanes - 1) / kLanes;
  // All channels of a few pixels: many pixels at large steps drive one another out of the caches
  // before the next panel wants the rest of their lines.
  constexpr Index kFew = 8;
  const Index pixels = job.rows * job.columns;
  for (Index row = 0; row < job.rows; ++row)
    for (Index first = 0; first < job.columns; first += kFew) {
      const Index count = job.columns - first < kFew ? job.columns - first : kFew;
      const float* few = job.from + row * job.row + first * job.column;
      float* panel = job.to + (row * job.columns + first) * kMaxScalars;
      for (Index c = 0; c < job.channels; c += kMaxScalars, panel += pixels * kMaxScalars) {
        const float* from = few + c;
        float* to = panel;
        for (Index i = 0; i < count; ++i, from += job.column, to += kMaxScalars) {
          // What a vector holds beyond the panel is overwritten by the next pixel. The last one has
          // none: after it comes a panel that has its pixel already.
          const bool last = row * job.columns + first + i + 1 == pixels;
          const Index left =
              last && job.channels - c > kMaxScalars ? kMaxScalars : job.channels - c;
          for (int v = 0; v < kVectors * kLanes; v += kLanes) {
            const Index rest = left - v;
            if (rest >= kLanes)
              store(to + v, load(from + v));
            else if (rest > 0)
              store_partial(to + v, load_partial(from + v, static_cast<int>(rest)),
                            static_cast<int>(rest));
          }
        }
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
