#include "backends/cpu/strassen.h"

#include "backends/cpu/fetch_lines.isa.h"
#include "backends/cpu/gemm_tile.isa.h"
#include "backends/cpu/take_lanes.isa.h"

// A tile is MR pairs by two vectors of either half of the output channels: four quadrants, of which
// one at a time is in registers. With two levels, MR times two pairs by two vectors of each
// quarter.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr int kMaxPairs = kStrassenPairs;
constexpr int kVectors = 2;
constexpr Index kBlock = kVectors * kLanes;
static_assert(kBlock == kStrassenBlock);

struct Quadrant {
  int pixel, part;  // of the pair, or the two; of the output channels
};
// What is finished after each product.
constexpr Quadrant kFinished[] = {{}, {0, 0}, {}, {}, {1, 0}, {1, 1}, {0, 1}};
// After which product what is fetched during each is finished.
constexpr int kNext[] = {1, 1, 4, 4, 5, 6, 6};

// A tile's place; `lines` are the outputs' first channels of each pixel.
struct Tile {
  const float* sums = nullptr;  // of its first pair
  const float* weights = nullptr;
  Index channel = 0;  // in the first part
  float* lines[4][kMaxPairs];
  // Likewise; as the outputs where there is none.
  const float* residuals[4][kMaxPairs];
  const float* masks[4][kMaxPairs];
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
  const Index channel = tile.channel + quadrant.part * job.out_part;
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

// Rows of weights that are multiplied between two jumps. What else a core does then, counting and
// addresses, takes turns with multiplications on Intel's ports: four rows need it once.
constexpr Index kSteps = 4;

// Products with a row of weights each.
template <int MR, int kCount>
PYCNN_INLINE void multiply_rows(const char* a, const char* b, Index step, const float* w,
                                Vec (&sum)[MR][kVectors]) {
  constexpr int kFirst = (MR + 1) / 2;
  const Index step3 = 3 * step, step5 = 5 * step;
#pragma GCC unroll 4
  for (int k = 0; k < kCount; ++k) {
    const Vec first = load(w + k * kBlock), second = load(w + k * kBlock + kLanes);
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) {
      const int j = i < kFirst ? i : i - kFirst;
      const char* base = i < kFirst ? a : b;
      const Index at = j == 3 ? step3 : j == 5 ? step5 : j == 6 ? 2 * step3 : j * step;
      const Vec x = broadcast_at(base + at + k * Index{sizeof(float)});
      add_product(sum[i][0], x, first);
      add_product(sum[i][1], x, second);
    }
  }
}

// Adds the product of the pairs at `sums` with `channels` rows of weights, and asks meanwhile for
// what a quadrant writes and adds to.
template <int MR>
PYCNN_INLINE void multiply(const float* sums, Index pitch, const float*& weights, Index channels,
                           const Tile& tile, Quadrant quadrant, Index out_part, bool has_residual,
                           bool has_mask, Vec (&sum)[MR][kVectors]) {
  const Index step = pitch * Index{sizeof(float)};
  const char* a = reinterpret_cast<const char*>(sums);
  const char* b = reinterpret_cast<const char*>(sums + (MR + 1) / 2 * pitch);
  const float* w = weights;
  const Index channel = tile.channel + quadrant.part * out_part;
  // A row at a time: many at once would take all the buffers that what is read here needs.
  int row = 0;
  for (Index left = channels / kSteps; left > 0; --left) {
    if (row < MR) {
      const float* const line = tile.lines[quadrant.pixel][row] + channel;
      __builtin_prefetch(line, 1, 3);
      __builtin_prefetch(line + kBlock - 1, 1, 3);
      if (has_residual) {
        __builtin_prefetch(tile.residuals[quadrant.pixel][row] + channel, 0, 3);
        __builtin_prefetch(tile.residuals[quadrant.pixel][row] + channel + kBlock - 1, 0, 3);
      }
      if (has_mask) {
        __builtin_prefetch(tile.masks[quadrant.pixel][row] + channel, 0, 3);
        __builtin_prefetch(tile.masks[quadrant.pixel][row] + channel + kBlock - 1, 0, 3);
      }
      ++row;
    }
#pragma GCC unroll 8
    for (Index line = 0; line < kSteps * kBlock; line += kLanes)
      __builtin_prefetch(w + 4 * kSteps * kBlock + line, 0, 3);
    multiply_rows<MR, kSteps>(a, b, step, w, sum);
    a += kSteps * sizeof(float);
    b += kSteps * sizeof(float);
    w += kSteps * kBlock;
    // Keeps the compiler from turning each address into an induction variable of its own.
    asm volatile("" : "+r"(a), "+r"(b), "+r"(w));
  }
  for (Index left = channels % kSteps; left > 0; --left) {
    multiply_rows<MR, 1>(a, b, step, w, sum);
    a += sizeof(float);
    b += sizeof(float);
    w += kBlock;
    asm volatile("" : "+r"(a), "+r"(b), "+r"(w));
  }
  weights = w;
}

// GCC does not see that the products come in order, and warns of sums that none has kept yet.
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
template <int MR>
void tile_kernel(const StrassenTiles& job, const Tile& tile, Fetch& fetch, Fetch& more,
                 Fetch& measured) {
  constexpr Index kFloats = MR * kBlock;
  alignas(64) float kept[3 * kFloats];
  float* const product1 = kept;
  float* const u2 = kept + kFloats;
  float* const u3 = kept + 2 * kFloats;

  Vec sum[MR][kVectors];
  clear(sum);
  const float* weights = tile.weights;
  for (int product = 0; product < kStrassenProducts; ++product) {
    if (fetch.lines > 0) step(fetch);
    if (more.lines > 0) step(more);
    if (measured.lines > 0) step(measured);
    if (product == 5) clear(sum);
    if (product == 2) restore(product1, sum);
    const Quadrant quadrant = kFinished[product];
    multiply(tile.sums + product * job.plane, job.pitch, weights, job.part, tile,
             kFinished[kNext[product]], job.out_part,
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

// What a product of the outer level comes to, in a quadrant of the inner one, goes on.
template <int MR>
PYCNN_INLINE void pass_on(const StrassenTiles& job, const Tile& tile, int product, Quadrant inner,
                          float* u2, float* u3, Vec (&sum)[MR][kVectors]) {
  const Index at = (2 * inner.pixel + inner.part) * MR * kBlock;
  u2 += at, u3 += at;
  const Quadrant outer = kFinished[product];
  if (product == 1 || product >= 4)
    finish(job, tile, {2 * inner.pixel + outer.pixel, 2 * outer.part + inner.part},
           product == 4 || product == 5 ? u3 : u2, sum);
  if (product == 2 || product == 3 || product == 5) add(u2, sum);
  if (product == 3) return save(u3, sum);
  if (product == 0 || product == 2 || product == 5) save(u2, sum);
}

template <int MR>
void two_level_kernel(const StrassenTiles& job, const Tile& tile, Fetch& fetch, Fetch& more,
                      Fetch& measured) {
  constexpr Index kFloats = MR * kBlock;
  alignas(64) float kept[11 * kFloats];
  float* const product1 = kept;  // of the inner level, as these
  float* const u2 = kept + kFloats;
  float* const u3 = kept + 2 * kFloats;
  float* const outer_u2 = kept + 3 * kFloats;  // of its four quadrants
  float* const outer_u3 = kept + 7 * kFloats;
  const bool has_residual = job.residual != nullptr && job.residual != job.output;

  const float* weights = tile.weights;
  const float* sums = tile.sums;
  for (int outer = 0; outer < kStrassenProducts; ++outer) {
    const Quadrant written = kFinished[kNext[outer]];
    Vec sum[MR][kVectors];
    clear(sum);
    for (int product = 0; product < kStrassenProducts; ++product, sums += job.plane) {
      if (fetch.lines > 0) step(fetch);
      if (more.lines > 0) step(more);
      if (measured.lines > 0) step(measured);
      if (product == 5) clear(sum);
      if (product == 2) restore(product1, sum);
      const Quadrant next = kFinished[kNext[product]];
      multiply(sums, job.pitch, weights, job.part, tile,
               {2 * next.pixel + written.pixel, 2 * written.part + next.part}, job.out_part,
               has_residual, job.mask != nullptr, sum);
      if (product == 0 || product == 5) save(product1, sum);
      if (product == 2) save(u2, sum);
      if (product == 3) save(u3, sum);
      if (product == 0 || product == 2 || product == 3) continue;
      if (product == 5) add(u3, sum);
      pass_on(job, tile, outer, kFinished[product], outer_u2, outer_u3, sum);
      if (product == 5) restore(product1, sum), add(u2, sum);
    }
  }
}

#pragma GCC diagnostic pop

using TileKernel = void (*)(const StrassenTiles&, const Tile&, Fetch&, Fetch&, Fetch&);

// Index: pairs - 1.
constexpr TileKernel kKernels[] = {
    tile_kernel<1>,  tile_kernel<2>,  tile_kernel<3>,  tile_kernel<4>,  tile_kernel<5>,
    tile_kernel<6>,  tile_kernel<7>,  tile_kernel<8>,  tile_kernel<9>,  tile_kernel<10>,
    tile_kernel<11>, tile_kernel<12>, tile_kernel<13>, tile_kernel<14>,
};
constexpr TileKernel kTwoLevelKernels[] = {
    two_level_kernel<1>,  two_level_kernel<2>,  two_level_kernel<3>,  two_level_kernel<4>,
    two_level_kernel<5>,  two_level_kernel<6>,  two_level_kernel<7>,  two_level_kernel<8>,
    two_level_kernel<9>,  two_level_kernel<10>, two_level_kernel<11>, two_level_kernel<12>,
    two_level_kernel<13>, two_level_kernel<14>,
};
static_assert(sizeof kKernels / sizeof *kKernels == kMaxPairs &&
              sizeof kTwoLevelKernels == sizeof kKernels);

PYCNN_INLINE void left_sides(Vec a11, Vec a12, Vec a21, Vec a22, Vec (&sums)[kStrassenProducts]) {
  const Vec s1 = a21 + a22, s2 = s1 - a11;
  sums[0] = a11, sums[1] = a12, sums[2] = s2, sums[3] = a11 - a21;
  sums[4] = a22, sums[5] = s1, sums[6] = a12 - s2;
}

// Up to a vector of both halves of both pixels.
PYCNN_INLINE void sum_lanes(const float* first, const float* second, Index half, Index plane,
                            int lanes, float* to) {
  const Vec a11 = load_lanes(first, lanes), a12 = load_lanes(first + half, lanes);
  const Vec a21 = second ? load_lanes(second, lanes) : zero();
  const Vec a22 = second ? load_lanes(second + half, lanes) : zero();
  Vec sums[kStrassenProducts];
  left_sides(a11, a12, a21, a22, sums);
#pragma GCC unroll 7
  for (int product = 0; product < kStrassenProducts; ++product)
    store(to + product * plane, sums[product]);
}

// A vector of all quarters of the pixels of two pairs.
PYCNN_INLINE void sum_two_levels(const float* const (&pixels)[4], Index part, Index plane,
                                 float* to) {
  // Of the outer level: [pair][inner half].
  Vec outer[2][2][kStrassenProducts];
#pragma GCC unroll 2
  for (int pair = 0; pair < 2; ++pair)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const float* first = pixels[2 * pair] + half * part;
      const float* second = pixels[2 * pair + 1] + half * part;
      left_sides(load(first), load(first + 2 * part), load(second), load(second + 2 * part),
                 outer[pair][half]);
    }
#pragma GCC unroll 7
  for (int o = 0; o < kStrassenProducts; ++o) {
    Vec sums[kStrassenProducts];
    left_sides(outer[0][0][o], outer[0][1][o], outer[1][0][o], outer[1][1][o], sums);
#pragma GCC unroll 7
    for (int product = 0; product < kStrassenProducts; ++product, to += plane)
      store(to, sums[product]);
  }
}

void two_level_sums(const StrassenSums& job) {
  float* to = job.sums;
  for (Index p = 0; p < job.count; p += 2, to += job.pitch) {
    const PixelPair* const pair = job.pairs + p;
    const PixelPair* const later = p + 2 < job.count ? pair + 2 : pair;
    const float* const pixels[4] = {job.input + pair[0].in_first, job.input + pair[0].in_second,
                                    job.input + pair[1].in_first, job.input + pair[1].in_second};
    const float* const near[4] = {job.input + later[0].in_first, job.input + later[0].in_second,
                                  job.input + later[1].in_first, job.input + later[1].in_second};
    for (Index c = 0; c < job.part; c += kLanes) {
      const float* const from[4] = {pixels[0] + c, pixels[1] + c, pixels[2] + c, pixels[3] + c};
      sum_two_levels(from, job.part, job.plane, to + c);
      for (int i = 0; i < 4; ++i)
        for (Index part = 0; part < 4; ++part) __builtin_prefetch(near[i] + part * job.part + c);
    }
  }
}

template <bool kStreamed>
void sum_weights(const StrassenWeights& job) {
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
      for (int product = 0; product < kStrassenProducts; ++product) {
        float* const sum = to + product * job.product + c;
        if constexpr (kStreamed)
          stream(sum, sums[product]);
        else
          store(sum, sums[product]);
      }
    }
}

}  // namespace

void strassen_sums(const StrassenSums& job) {
  if (job.levels == 2) return two_level_sums(job);
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
    for (; c + kLanes <= job.part; c += kLanes) {
      sum_lanes(first + c, second ? second + c : nullptr, job.part, job.plane, kLanes, to + c);
      __builtin_prefetch(near_first + c);
      __builtin_prefetch(near_first + job.part + c);
      __builtin_prefetch(near_second + c);
      __builtin_prefetch(near_second + job.part + c);
    }
    // The vectors of the sums are whole: pairs lie as far apart.
    if (c < job.part)
      sum_lanes(first + c, second ? second + c : nullptr, job.part, job.plane,
                static_cast<int>(job.part - c), to + c);
  }
}

void strassen_tiles(const StrassenTiles& job) {
  const bool twice = job.levels == 2;
  const Index set = twice ? 2 : 1;  // pairs that are multiplied together
  const Index products = strassen_products(job.levels), sets = job.count / set;
  const Index tiles = (sets + kMaxPairs - 1) / kMaxPairs;
  const Index steps = (job.block_end - job.block_begin) * tiles * products;
  Fetch fetch = make_fetch(job.fetch, steps), more = make_fetch(job.fetch_more, steps);
  Fetch measured = make_fetch(job.fetch_measured, steps);
  const float* const others = job.residual ? job.residual : job.output;
  const float* const masks = job.mask ? job.mask : job.output;
  Tile tile;
  for (Index block = job.block_begin; block < job.block_end; ++block) {
    tile.channel = block * kBlock;
    tile.weights = job.weights + tile.channel * products * job.part;
    Index first = 0;
    for (Index t = 0; t < tiles; ++t) {
      const Index end = sets * (t + 1) / tiles, count = end - first;
      tile.sums = job.sums + first * job.pitch;
      for (Index i = 0; i < count; ++i)
        for (Index p = 0; p < set; ++p) {
          const PixelPair& pair = job.pairs[(first + i) * set + p];
          const bool alone = pair.out_second == kNoPixel;
          const Index second = alone ? pair.out_first : pair.out_second;
          tile.lines[2 * p][i] = job.output + pair.out_first;
          tile.lines[2 * p + 1][i] = alone ? job.spare : job.output + pair.out_second;
          tile.residuals[2 * p][i] = others + pair.out_first;
          tile.residuals[2 * p + 1][i] = others + second;
          tile.masks[2 * p][i] = masks + pair.out_first;
          tile.masks[2 * p + 1][i] = masks + second;
        }
      (twice ? kTwoLevelKernels : kKernels)[count - 1](job, tile, fetch, more, measured);
      first = end;
    }
  }
}

void strassen_weights(const StrassenWeights& job) {
  if (job.streamed) {
    sum_weights<true>(job);
    end_streams();
  } else {
    sum_weights<false>(job);
  }
}

void strassen_turn(const float* from, Index pitch, Index count, float* to) {
  for (Index row = 0; row < kBlock; row += kLanes)
    for (Index k = 0; k < count; k += kLanes) {
      const int lanes = static_cast<int>(count - k < kLanes ? count - k : kLanes);
      Vec x[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) x[i] = load_lanes(from + (row + i) * pitch + k, lanes);
      transpose(x);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i)
        if (i < lanes) store(to + (k + i) * kBlock + row, x[i]);
    }
}

}  // namespace pycnn::cpu::PYCNN_ISA
