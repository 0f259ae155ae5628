#include "backends/cpu/conv2d_grouped_fetch.isa.h"
#include "backends/cpu/conv2d_grouped_tiles.h"
#include "backends/cpu/gemm_tile.isa.h"
#include "backends/cpu/take_lanes.isa.h"

// A tile is MR pixels of one vector of output channels. An input pixel, once in a register, is
// multiplied with all taps of its run that it meets: at stride 1 a pixel serves three
// multiply-adds, so that loads do not hold them back. (Where shuffles compete with the
// multiply-adds, lanes of small groups are filled while rows are copied.)
namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr int kMaxPixels = kVectorRegisters == 32 ? 14 : 12;

struct Tile {
  const float* input;
  float* output;
};

// How the lanes of a vector get their input channel.
enum class Source { kBroadcast, kWhole, kPlanes, kPick };

// Lanes of a vector of whole groups take their own group's channel.
PYCNN_INLINE Vec take_channel(Vec x, IVec from) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  // Groups lie within the halves of the vector; `from` counts modulo four.
  return (Vec)_mm256_permutevar_ps((__m256)x, (__m256i)from);
#else
  return take_lanes(x, from);
#endif
}

template <Source kSource>
PYCNN_INLINE Vec pixel_at(const float* x, IVec from) {
  if constexpr (kSource == Source::kBroadcast) return broadcast(*x);
  if constexpr (kSource == Source::kPick) return take_channel(load(x), from);
  return load(x);
}

// One run: returns the weights of the next. Taps whose pixels no other meets come one at a time.
template <int MR, int S, Source kSource, int T>
PYCNN_INLINE const float* add_run(const GroupTiles& job, const float* x, Index channels,
                                  const float* w, Vec (&sum)[MR]) {
  constexpr int kPitch = kSource == Source::kPlanes ? kLanes : kInputBlock;
  IVec from = {};
  if constexpr (kSource == Source::kPick)
    for (int lane = 0; lane < kLanes; ++lane) from[lane] = lane & -static_cast<int>(job.group);
  const float* const end = w + channels * T * kLanes;
  do {
    Vec wv[T];
#pragma GCC unroll 3
    for (int t = 0; t < T; ++t) wv[t] = load(w + t * kLanes);
#pragma GCC unroll 32
    for (int j = 0; j < (MR - 1) * S + T; ++j) {
      const Vec pixel = pixel_at<kSource>(x + j * kPitch, from);
#pragma GCC unroll 3
      for (int t = 0; t < T; ++t) {
        const int i = (j - t) / S;
        if (j >= t && (j - t) % S == 0 && i < MR) sum[i] = fma(pixel, wv[t], sum[i]);
      }
    }
    if constexpr (kSource == Source::kPick)
      from += 1;
    else
      x += kSource == Source::kPlanes ? job.plane_pitch : 1;
    w += T * kLanes;
    // Keeps the compiler from turning each address into an induction variable of its own.
    asm volatile("" : "+r"(x), "+r"(w));
  } while (w != end);
  return w;
}

template <int MR>
PYCNN_INLINE void finish(const GroupTiles& job, float* output, Vec (&sum)[MR]) {
  const int lanes = static_cast<int>(job.lanes);
  const Vec bias = job.bias ? load_partial(job.bias, lanes) : zero();
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) sum[i] = sum[i] + bias;
  if (job.residual) {
    const float* residual = job.residual + (output - job.output);
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i)
      sum[i] = sum[i] + load_partial(residual + i * job.output_column, lanes);
  }
  activate(job.activation, job.slope, reinterpret_cast<Vec(&)[MR][1]>(sum));
  if (lanes == kLanes) {
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) store(output + i * job.output_column, sum[i]);
  } else {
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) store_partial(output + i * job.output_column, sum[i], lanes);
  }
}

template <int MR, int S, Source kSource>
void tile_kernel(const GroupTiles& job, const Tile& tile) {
  Vec sum[MR];
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) sum[i] = zero();
  const float* w = job.weights;
  const Index* const end = job.runs + 3 * job.run_count;
  for (const Index* run = job.runs; run != end; run += 3) {
    const float* x = tile.input + run[0];
    if (run[1] == 3)
      w = add_run<MR, S, kSource, 3>(job, x, run[2], w, sum);
    else if (run[1] == 2)
      w = add_run<MR, S, kSource, 2>(job, x, run[2], w, sum);
    else
      w = add_run<MR, S, kSource, 1>(job, x, run[2], w, sum);
  }
  finish(job, tile.output, sum);
}

using TileKernel = void (*)(const GroupTiles&, const Tile&);

// Index: pixels - 1.
template <int S, Source kSource>
struct Kernels {
  static constexpr TileKernel kList[] = {
      tile_kernel<1, S, kSource>,  tile_kernel<2, S, kSource>,  tile_kernel<3, S, kSource>,
      tile_kernel<4, S, kSource>,  tile_kernel<5, S, kSource>,  tile_kernel<6, S, kSource>,
      tile_kernel<7, S, kSource>,  tile_kernel<8, S, kSource>,  tile_kernel<9, S, kSource>,
      tile_kernel<10, S, kSource>, tile_kernel<11, S, kSource>, tile_kernel<12, S, kSource>,
#if defined(__AVX512F__)
      tile_kernel<13, S, kSource>, tile_kernel<14, S, kSource>,
#endif
  };
};

template <int S>
const TileKernel* kernels_of(const GroupTiles& job) {
  if constexpr (kPickLanes) {
    if (job.group == 1) return Kernels<S, Source::kWhole>::kList;
    if (job.group > 1) return Kernels<S, Source::kPick>::kList;
  } else if constexpr (S == 1) {
    if (job.plane_pitch > 0) return Kernels<S, Source::kPlanes>::kList;
  }
  return Kernels<S, Source::kBroadcast>::kList;
}

// What lies beyond the end is of no use to anybody, but must not be read.
PYCNN_INLINE Vec load_before(const float* p, const float* end) {
  const Index left = end - p;
  if (left >= kLanes) return load(p);
  return left > 0 ? load_partial(p, static_cast<int>(left)) : zero();
}

template <int kGroup>
[[maybe_unused]] void copy_planes(const GroupRow& job, Index first, Index last, bool whole) {
  IVec from[kGroup];
  for (int k = 0; k < kGroup; ++k)
    for (int lane = 0; lane < kLanes; ++lane) from[k][lane] = (lane & -kGroup) + k;
  const float* p = job.from + first * job.channels;
  float* to = job.to + first * kLanes;
  for (Index column = first; column < last; ++column, p += job.channels, to += kLanes) {
    const Vec x = whole ? load(p) : load_before(p, job.end);
#pragma GCC unroll 8
    for (int k = 0; k < kGroup; ++k)
      store(to + k * job.plane_pitch, kGroup == 1 ? x : take_channel(x, from[k]));
  }
}

// Pixel by pixel: what is read lies in one run.
void copy_blocks(const GroupRow& job, Index first, Index last, bool whole) {
  const float* p = job.from + first * job.channels;
  float* to = job.to + first * kInputBlock;
  for (Index column = first; column < last; ++column, p += job.channels, to += kInputBlock)
    for (Index block = 0; block < job.blocks; ++block)
#pragma GCC unroll 4
      for (int c = 0; c < static_cast<int>(kInputBlock); c += kLanes) {
        const float* from = p + block * kInputBlock + c;
        store(to + block * job.plane_pitch + c, whole ? load(from) : load_before(from, job.end));
      }
}

void copy_columns(const GroupRow& job, Index first, Index last, bool whole) {
  if constexpr (!kPickLanes) switch (job.group) {
      case 1:
        return copy_planes<1>(job, first, last, whole);
      case 2:
        return copy_planes<2>(job, first, last, whole);
      default:
        break;
    }
  copy_blocks(job, first, last, whole);
}

}  // namespace

void copy_group_row(const GroupRow& job) {
  // Near the end of the image whole vectors may reach beyond it.
  const Index reach = job.group > 0 ? kLanes : job.blocks * kInputBlock;
  const Index left = job.end - job.from - reach;
  Index whole = left < 0 ? 0 : left / job.channels + 1;
  if (whole > job.columns) whole = job.columns;
  copy_columns(job, 0, whole, true);
  copy_columns(job, whole, job.columns, false);
}

void group_tiles(const GroupTiles& job) {
  const bool planes = job.plane_pitch > 0;
  const TileKernel* const kernels = job.stride == 1 ? kernels_of<1>(job) : kernels_of<2>(job);
  const Index pixel = job.stride * (planes ? kLanes : kInputBlock);
  const Index tiles = (job.columns + kMaxPixels - 1) / kMaxPixels;
  Index column = 0;
  for (Index t = 0; t < tiles; ++t) {
    const Index end = job.columns * (t + 1) / tiles;
    fetch_part(job.fetch_input, t, tiles);
    fetch_part(job.fetch_output, t, tiles);
    kernels[end - column - 1](
        job, {job.input + column * pixel, job.output + column * job.output_column});
    column = end;
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
