#include "backends/cpu/strassen.h"

#include "backends/cpu/fetch_lines.isa.h"
#include "backends/cpu/gemm_tile.isa.h"

// A tile is MR pairs by two vectors of either half of the output channels: four quadrants, of which
// one at a time is in registers.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr int kMaxPairs = kStrassenPairs;
constexpr int kVectors = 2;
constexpr Index kBlock = kVectors * kLanes;
static_assert(kBlock == kStrassenBlock);

struct Quadrant {
  int pixel, half;  // of the pair, of the output channels
};

// A tile's place; `lines` are the outputs' first channels of each pixel.
struct Tile {
  const float* sums = nullptr;  // of its first pair
  const float* weights = nullptr;
  Index channel = 0;  // in the first half
  float* lines[2][kMaxPairs];
  // Likewise; as the outputs where there is none.
  const float* residuals[2][kMaxPairs];
  const float* masks[2][kMaxPairs];
};

template <int MR>
PYCNN_INLINE void clear(Vec (&sum)[MR][kVectors]) {
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) sum[i][0] = sum[i][1] = zero();
}

template <int MR>
PYCNN_INLINE void save(float* to, const Vec (&sum)[MR][kVectors]) {
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store(to + i * kBlock + v * kLanes, sum[i][v]);
}

template <int MR>
PYCNN_INLINE void restore(const float* from, Vec (&sum)[MR][kVectors]) {
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[i][v] = load(from + i * kBlock + v * kLanes);
}

template <int MR>
PYCNN_INLINE void add(const float* from, Vec (&sum)[MR][kVectors]) {
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[i][v] = sum[i][v] + load(from + i * kBlock + v * kLanes);
}

// Row by row, so that the sums themselves may stay: `other` (optional) is added to what leaves.
template <int MR>
PYCNN_INLINE void finish(const StrassenTiles& job, const Tile& tile, Quadrant quadrant,
                         const float* other, const Vec (&sum)[MR][kVectors]) {
  const Index channel = tile.channel + quadrant.half * job.out_half;
  float* const* const lines = tile.lines[quadrant.pixel];
  const float* const* const residuals = tile.residuals[quadrant.pixel];
  const float* const* const masks = tile.masks[quadrant.pixel];
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) {
    Vec row[1][kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      row[0][v] = sum[i][v];
      if (other) row[0][v] = row[0][v] + load(other + i * kBlock + v * kLanes);
      if (job.bias) row[0][v] = row[0][v] + load(job.bias + channel + v * kLanes);
      if (job.residual) row[0][v] = row[0][v] + load(residuals[i] + channel + v * kLanes);
    }
    activate(job.activation, job.slope, row);
    if (job.mask)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v)
        row[0][v] = masked(load(masks[i] + channel + v * kLanes), row[0][v]);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store(lines[i] + channel + v * kLanes, row[0][v]);
  }
}

PYCNN_INLINE Vec broadcast_at(const char* p) {
  float x;
  __builtin_memcpy(&x, p, sizeof x);
  return broadcast(x);
}

// Adds the product of the pairs at `sums` with `channels` rows of weights, and asks meanwhile for
// what a quadrant writes and adds to.
template <int MR>
PYCNN_INLINE void multiply(const float* sums, Index pitch, const float*& weights, Index channels,
                           const Tile& tile, Quadrant quadrant, Index out_half, bool has_residual,
                           bool has_mask, Vec (&sum)[MR][kVectors]) {
  constexpr int kFirst = (MR + 1) / 2;
  const Index step = pitch * Index{sizeof(float)};
  const Index step3 = 3 * step, step5 = 5 * step;
  const char* a = reinterpret_cast<const char*>(sums);
  const char* b = reinterpret_cast<const char*>(sums + kFirst * pitch);
  const char* const end = a + channels * Index{sizeof(float)};
  const float* w = weights;
  // Evenly over the product: many at once would take all the buffers that what is read here needs.
  constexpr int kLines = 2 * MR;
  const Index channel = tile.channel + quadrant.half * out_half;
  const Index rate = (Index{kLines} << 16) / channels;
  Index due = 0;
  do {
    const Index line = due >> 16;
    const Index at = channel + (line & 1) * (kBlock - 1);
    __builtin_prefetch(tile.lines[quadrant.pixel][line >> 1] + at, 1, 3);
    if (has_residual) __builtin_prefetch(tile.residuals[quadrant.pixel][line >> 1] + at, 0, 3);
    if (has_mask) __builtin_prefetch(tile.masks[quadrant.pixel][line >> 1] + at, 0, 3);
    due += rate;
    const Vec first = load(w), second = load(w + kLanes);
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) {
      const int j = i < kFirst ? i : i - kFirst;
      const char* base = i < kFirst ? a : b;
      const Index at = j == 3 ? step3 : j == 5 ? step5 : j == 6 ? 2 * step3 : j * step;
      const Vec x = broadcast_at(base + at);
      sum[i][0] = fma(x, first, sum[i][0]);
      sum[i][1] = fma(x, second, sum[i][1]);
    }
    a += sizeof(float);
    b += sizeof(float);
    w += kBlock;
    // Keeps the compiler from turning each address into an induction variable of its own.
    asm volatile("" : "+r"(a), "+r"(b), "+r"(w));
  } while (a != end);
  weights = w;
}

// GCC does not see that the products come in order, and warns of sums that none has kept yet.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
template <int MR>
void tile_kernel(const StrassenTiles& job, const Tile& tile, Fetch& fetch, Fetch& measured) {
  constexpr Index kFloats = MR * kBlock;
  alignas(64) float kept[3 * kFloats];
  float* const product1 = kept;
  float* const u2 = kept + kFloats;
  float* const u3 = kept + 2 * kFloats;
  // What is finished after each product.
  constexpr Quadrant kFinished[] = {{}, {0, 0}, {}, {}, {1, 0}, {1, 1}, {0, 1}};
  // After which product what is fetched during each is finished.
  constexpr int kNext[] = {1, 1, 4, 4, 5, 6, 6};

  Vec sum[MR][kVectors];
  clear(sum);
  const float* weights = tile.weights;
  for (int product = 0; product < kStrassenProducts; ++product) {
    if (fetch.lines > 0) step(fetch);
    if (measured.lines > 0) step(measured);
    if (product == 5) clear(sum);
    if (product == 2) restore(product1, sum);
    const Quadrant quadrant = kFinished[product];
    multiply(tile.sums + product * job.plane, job.pitch, weights, job.half, tile,
             kFinished[kNext[product]], job.out_half,
             job.residual != nullptr && job.residual != job.output, job.mask != nullptr, sum);
    switch (product) {
      case 0:
        save(product1, sum);
        continue;
      case 2:
        save(u2, sum);
        continue;
      case 3:
        save(u3, sum);
        continue;
      case 5:
        finish(job, tile, quadrant, u3, sum);
        add(u2, sum);
        continue;
      default:
        finish(job, tile, quadrant, nullptr, sum);
    }
  }
}
#pragma GCC diagnostic pop

using TileKernel = void (*)(const StrassenTiles&, const Tile&, Fetch&, Fetch&);

// Index: pairs - 1.
constexpr TileKernel kKernels[] = {
    tile_kernel<1>,  tile_kernel<2>,  tile_kernel<3>,  tile_kernel<4>,  tile_kernel<5>,
    tile_kernel<6>,  tile_kernel<7>,  tile_kernel<8>,  tile_kernel<9>,  tile_kernel<10>,
    tile_kernel<11>, tile_kernel<12>, tile_kernel<13>, tile_kernel<14>,
};
static_assert(sizeof kKernels / sizeof *kKernels == kMaxPairs);

// Up to a vector of both halves of both pixels.
PYCNN_INLINE void sum_lanes(const float* first, const float* second, Index half, Index plane,
                            int lanes, float* to) {
  const Vec a11 = load_lanes(first, lanes), a12 = load_lanes(first + half, lanes);
  const Vec a21 = second ? load_lanes(second, lanes) : zero();
  const Vec a22 = second ? load_lanes(second + half, lanes) : zero();
  const Vec s1 = a21 + a22, s2 = s1 - a11;
  const Vec sums[kStrassenProducts] = {a11, a12, s2, a11 - a21, a22, s1, a12 - s2};
#pragma GCC unroll 7
  for (int product = 0; product < kStrassenProducts; ++product)
    store(to + product * plane, sums[product]);
}

}  // namespace

void strassen_sums(const StrassenSums& job) {
  constexpr Index kAhead = 4;  // pairs
  float* to = job.sums;
  for (Index p = 0; p < job.count; ++p, to += job.pitch) {
    const PixelPair& pair = job.pairs[p];
    const PixelPair& later = job.pairs[p + kAhead < job.count ? p + kAhead : p];
    const float* first = job.input + pair.in_first;
    const float* second = pair.in_second == kNoPixel ? nullptr : job.input + pair.in_second;
    const float* near_first = job.input + later.in_first;
    const float* near_second =
        later.in_second == kNoPixel ? near_first : job.input + later.in_second;
    Index c = 0;
    for (; c + kLanes <= job.half; c += kLanes) {
      sum_lanes(first + c, second ? second + c : nullptr, job.half, job.plane, kLanes, to + c);
      __builtin_prefetch(near_first + c);
      __builtin_prefetch(near_first + job.half + c);
      __builtin_prefetch(near_second + c);
      __builtin_prefetch(near_second + job.half + c);
    }
    // The vectors of the sums are whole: pairs lie as far apart.
    if (c < job.half)
      sum_lanes(first + c, second ? second + c : nullptr, job.half, job.plane,
                static_cast<int>(job.half - c), to + c);
  }
}

void strassen_tiles(const StrassenTiles& job) {
  const Index tiles = (job.count + kMaxPairs - 1) / kMaxPairs;
  const Index steps = (job.block_end - job.block_begin) * tiles * kStrassenProducts;
  Fetch fetch = make_fetch(job.fetch, steps), measured = make_fetch(job.fetch_measured, steps);
  Tile tile;
  for (Index block = job.block_begin; block < job.block_end; ++block) {
    tile.channel = block * kBlock;
    tile.weights = job.weights + tile.channel * kStrassenProducts * job.half;
    Index first = 0;
    for (Index t = 0; t < tiles; ++t) {
      const Index end = job.count * (t + 1) / tiles, pairs = end - first;
      tile.sums = job.sums + first * job.pitch;
      for (Index i = 0; i < pairs; ++i) {
        const PixelPair& pair = job.pairs[first + i];
        const bool alone = pair.out_second == kNoPixel;
        tile.lines[0][i] = job.output + pair.out_first;
        tile.lines[1][i] = alone ? job.spare : job.output + pair.out_second;
        const float* others = job.residual ? job.residual : job.output;
        tile.residuals[0][i] = others + pair.out_first;
        tile.residuals[1][i] = others + (alone ? pair.out_first : pair.out_second);
        const float* masks = job.mask ? job.mask : job.output;
        tile.masks[0][i] = masks + pair.out_first;
        tile.masks[1][i] = masks + (alone ? pair.out_first : pair.out_second);
      }
      kKernels[pairs - 1](job, tile, fetch, measured);
      first = end;
    }
  }
}

void strassen_weights(const StrassenWeights& job) {
  float* to = job.packed;
  Index at = 0;
  for (Index k = 0; k < job.count; ++k, at += job.pitch, to += kBlock)
#pragma GCC unroll 2
    for (Index c = 0; c < kBlock; c += kLanes) {
      const Vec b11 = load(job.b11 + at + c), b12 = load(job.b12 + at + c);
      const Vec b21 = load(job.b21 + at + c), b22 = load(job.b22 + at + c);
      const Vec t1 = b12 - b11, t2 = b22 - t1;
      const Vec sums[kStrassenProducts] = {b11, b21, t2, b22 - b12, b21 - t2, t1, b22};
#pragma GCC unroll 7
      for (int product = 0; product < kStrassenProducts; ++product)
        store(to + product * job.product + c, sums[product]);
    }
}

}  // namespace pycnn::cpu::PYCNN_ISA
