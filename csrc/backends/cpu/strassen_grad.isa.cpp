#include "backends/cpu/strassen_grad.h"

#include "backends/cpu/fetch_lines.isa.h"
#include "backends/cpu/simd.isa.h"

// As in gemm_outer.isa.cpp, operands are copied while the first tiles that need them are
// multiplied; here the copies are sums of up to four quarters of an operand. Additions have pipes
// of their own, and stores fit between the multiplications.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr int kScalars = static_cast<int>(kGemmScalars);
constexpr Index kBlock = 2 * kLanes;
constexpr Index kTile = kScalars * kBlock;
constexpr Index kPanel = kStrassenPanel;  // a panel's pixels start at lines of their own, or halves

// Panels are copied so many pairs before they are multiplied: what has just been stored is slow to
// broadcast from.
constexpr Index kCopiedAhead = 4;
// So many pairs of a source come near before they are copied: to the second cache, for with powers
// of two of channels they share a few sets of the nearest one.
constexpr Index kNearAhead = 24;

// What a copy is made of in terms of its sources x, y, z, w.
enum class Sum : std::uint8_t { kCopied, kX, kXMinusY, kXMinusYPlusZ, kAlternating, kXPlusY };

constexpr int sources_of(Sum sum) { return sum == Sum::kXPlusY ? 2 : static_cast<int>(sum); }

struct Sources {
  const float* from[4];
};

PYCNN_INLINE void move(Sources& sources, Index floats) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) sources.from[i] += floats;
}

template <Sum kSum>
PYCNN_INLINE Vec add_up(const Sources& s, Index at, int lanes) {
  Vec v = load_lanes(s.from[0] + at, lanes);
  if constexpr (kSum == Sum::kXPlusY) return v + load_lanes(s.from[1] + at, lanes);
  if constexpr (kSum >= Sum::kXMinusY) v = v - load_lanes(s.from[1] + at, lanes);
  if constexpr (kSum >= Sum::kXMinusYPlusZ) v = v + load_lanes(s.from[2] + at, lanes);
  if constexpr (kSum >= Sum::kAlternating) v = v - load_lanes(s.from[3] + at, lanes);
  return v;
}

// A pair's part of a whole panel. Vectors shorter than the panel overlap.
template <Sum kSum>
PYCNN_INLINE void copy_panel_pair(const Sources& s, float* to) {
  if constexpr (kScalars <= kLanes) {
    store(to, add_up<kSum>(s, 0, kScalars));
  } else {
    static_assert(kScalars <= 2 * kLanes);
    store(to, add_up<kSum>(s, 0, kLanes));
    store(to + kScalars - kLanes, add_up<kSum>(s, kScalars - kLanes, kLanes));
  }
}

template <Sum kSum>
PYCNN_INLINE void ask_for(const Sources& s, Index at) {
  for (int i = 0; i < sources_of(kSum); ++i) __builtin_prefetch(s.from[i] + at, 0, 2);
}

// One operand of a tile.
struct Operand {
  Sources sources;
  Index step = 0;  // of a source, from pair to pair
  Index next = 0;  // what is wanted after the last pair, from the first
  float* copy = nullptr;
};

template <int kCount>
PYCNN_INLINE void clear(Vec (&sum)[kCount][2]) {
#pragma GCC unroll 14
  for (int i = 0; i < kCount; ++i) sum[i][0] = sum[i][1] = zero();
}

template <int kCount>
PYCNN_INLINE void multiply(const float* x, const Vec (&y)[2], Vec (&sum)[kCount][2]) {
#pragma GCC unroll 14
  for (int i = 0; i < kCount; ++i) {
    const Vec xv = broadcast(x[i]);
    sum[i][0] = fma(xv, y[0], sum[i][0]);
    sum[i][1] = fma(xv, y[1], sum[i][1]);
  }
}

template <int kCount>
PYCNN_INLINE void finish(const Vec (&sum)[kCount][2], float* c, bool accumulate) {
#pragma GCC unroll 14
  for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* to = c + i * kBlock + v * kLanes;
      store(to, accumulate ? sum[i][v] + load(to) : sum[i][v]);
    }
}

// Pairs between which something else is asked for: many lines at once would take all the buffers
// that what is read here needs.
constexpr Index kRun = 8;

// Multiplies a whole tile of copies. What is added to in the end, and what is read later, comes
// near in the meantime.
void plain_kernel(const float* x, const float* y, Index pairs, float* c, bool accumulate,
                  Fetch& fetch, Fetch& other) {
  Vec sum[kScalars][2];
  clear(sum);
  constexpr Index kLines = kTile / kFetchedLine;
  const Index each = (kLines * kRun + pairs - 1) / pairs;
  Index line = accumulate ? 0 : kLines;
  for (Index first = 0; first < pairs; first += kRun) {
    step(fetch);
    step(other);
    const Index end = line + each < kLines ? line + each : kLines;
    for (; line < end; ++line) __builtin_prefetch(c + line * kFetchedLine, 1);
    const Index count = pairs - first < kRun ? pairs - first : kRun;
    for (Index pair = 0; pair < count; ++pair, x += kPanel, y += kBlock) {
      const Vec pixels[2] = {load(y), load(y + kLanes)};
      multiply(x, pixels, sum);
    }
  }
  finish(sum, c, accumulate);
}

// Multiplies a whole tile and makes the copies of one operand, or of both, on the way.
template <Sum kPanelSum, Sum kBlockSum>
void tile_kernel(Operand a, Operand b, Index pairs, float* c, bool accumulate) {
  constexpr bool kCopyA = kPanelSum != Sum::kCopied, kCopyB = kBlockSum != Sum::kCopied;
  Vec sum[kScalars][2];
  clear(sum);
  constexpr Index kLines = kTile / kFetchedLine;
  Index line = accumulate ? 0 : kLines;
  const float* x = a.copy;
  auto copy_a = [&](Index near) {
    copy_panel_pair<kPanelSum>(a.sources, a.copy);
    ask_for<kPanelSum>(a.sources, near + kScalars - 1);  // its first line came with the last panel
    move(a.sources, a.step);
    a.copy += kPanel;
  };
  const Index ahead = !kCopyA ? 0 : pairs < kCopiedAhead ? pairs : kCopiedAhead;
  const Index near = pairs - ahead < kNearAhead ? pairs - ahead : kNearAhead;
  if constexpr (kCopyA)
    for (Index pair = 0; pair < ahead; ++pair) copy_a(near * a.step);
  // The pairs before the last ones of the source come near, these, and those that are copied.
  const Index counts[3] = {pairs - ahead - near, near, ahead};
  Index near_a = near * a.step, near_b = near * b.step;
  for (int phase = 0; phase < 3; ++phase) {
    for (Index pair = 0; pair < counts[phase]; ++pair) {
      if constexpr (kCopyA)
        if (phase < 2) copy_a(near_a);
      if (line < kLines) __builtin_prefetch(c + line++ * kFetchedLine, 1);
      Vec y[2];
      if constexpr (kCopyB) {
        y[0] = add_up<kBlockSum>(b.sources, 0, kLanes);
        y[1] = add_up<kBlockSum>(b.sources, kLanes, kLanes);
        store(b.copy, y[0]);
        store(b.copy + kLanes, y[1]);
        ask_for<kBlockSum>(b.sources, near_b);
        ask_for<kBlockSum>(b.sources, near_b + kBlock - 1);
        move(b.sources, b.step);
      } else {
        y[0] = load(b.copy), y[1] = load(b.copy + kLanes);
      }
      multiply(x, y, sum);
      x += kPanel, b.copy += kBlock;
    }
    near_a = a.next - (pairs - near) * a.step;
    near_b = b.next - (pairs - near) * b.step;
  }
  finish(sum, c, accumulate);
}

// Copies a panel of up to kScalars outputs.
template <Sum kSum>
void copy_panel(Operand a, Index pairs, Index outputs) {
  for (Index pair = 0; pair < pairs; ++pair, a.copy += kPanel) {
    if (outputs == kScalars) {
      copy_panel_pair<kSum>(a.sources, a.copy);
    } else {
      for (Index v = 0; v < outputs; v += kLanes) {
        const Index rest = outputs - v;
        store(a.copy + v,
              add_up<kSum>(a.sources, v, static_cast<int>(rest < kLanes ? rest : kLanes)));
      }
    }
    ask_for<kSum>(a.sources, kNearAhead * a.step + outputs - 1);
    move(a.sources, a.step);
  }
}

template <Sum kSum>
void copy_block(Operand b, Index pairs) {
  for (Index pair = 0; pair < pairs; ++pair, b.copy += kBlock) {
    store(b.copy, add_up<kSum>(b.sources, 0, kLanes));
    store(b.copy + kLanes, add_up<kSum>(b.sources, kLanes, kLanes));
    ask_for<kSum>(b.sources, kNearAhead * b.step);
    ask_for<kSum>(b.sources, kNearAhead * b.step + kBlock - 1);
    move(b.sources, b.step);
  }
}

template <Sum kPanelSum, Sum kBlockSum>
void product(const StrassenGradPairs& job, const Sources& grads, const Sources& inputs, int index,
             Fetch& fetch, Fetch& other) {
  float* c = job.sums + index * job.plane;
  Operand a, b;
  a.step = 2 * job.grad_pixel, b.step = 2 * job.input_pixel;
  b.copy = job.block;
  for (Index j = 0; j < job.inputs; j += kBlock) {
    b.sources = inputs;
    move(b.sources, j);
    // After the last block, the first of the pairs that follow.
    b.next = j + kBlock < job.inputs ? kBlock : job.pairs * b.step - j;
    a.copy = job.panels;
    for (Index i = 0; i < job.outputs; i += kScalars, c += kTile, a.copy += job.pairs * kPanel) {
      const Index outputs = job.outputs - i < kScalars ? job.outputs - i : kScalars;
      a.sources = grads;
      move(a.sources, i);
      a.next = i + kScalars < job.outputs ? kScalars : job.pairs * a.step - i;
      const bool whole = outputs == kScalars, copy_a = j == 0, copy_b = i == 0;
      if (copy_a && !whole) copy_panel<kPanelSum>(a, job.pairs, outputs);
      if (whole) {
        if (copy_a && copy_b)
          tile_kernel<kPanelSum, kBlockSum>(a, b, job.pairs, c, job.accumulate);
        else if (copy_b)
          tile_kernel<Sum::kCopied, kBlockSum>(a, b, job.pairs, c, job.accumulate);
        else if (copy_a)
          tile_kernel<kPanelSum, Sum::kCopied>(a, b, job.pairs, c, job.accumulate);
        else
          plain_kernel(a.copy, b.copy, job.pairs, c, job.accumulate, fetch, other);
        continue;
      }
      if (copy_b) copy_block<kBlockSum>(b, job.pairs);
      OuterTiles tile;
      tile.a = a.copy, tile.b = b.copy;
      tile.rows = 1, tile.columns = job.pairs;
      tile.a_column = kPanel, tile.b_column = kBlock;
      tile.m = outputs, tile.n = kBlock;
      tile.c = c, tile.c_pitch = kBlock, tile.accumulate = job.accumulate;
      outer_tiles(tile);
    }
  }
}

// How often something is asked for in all products: in the tiles of all panels and blocks but the
// first ones, which are copied.
Index fetch_steps(const StrassenGradPairs& job) {
  const Index tiles = (job.outputs / kScalars - 1) * (job.inputs / kBlock - 1);
  return kStrassenGradProducts * (tiles > 1 ? tiles : 1) * ((job.pairs + kRun - 1) / kRun);
}

}  // namespace

void strassen_grad_products(const StrassenGradPairs& job) {
  const float* a11 = job.grad;
  const float* a12 = a11 + job.grad_pixel;
  const float* a21 = a11 + job.grad_half;
  const float* a22 = a12 + job.grad_half;
  const float* b11 = job.input;
  const float* b21 = b11 + job.input_pixel;
  const float* b12 = b11 + job.input_half;
  const float* b22 = b21 + job.input_half;
  const Sources s4 = {{a12, a21, a11, a22}}, s1 = {{a21, a22, a22, a22}};
  const Sources s2 = {{a21, a11, a22, a22}}, s3 = {{a11, a21, a21, a21}};
  const Sources t4 = {{b22, b12, b11, b21}}, t1 = {{b12, b11, b11, b11}},
                t3 = {{b22, b12, b12, b12}};
  auto alone = [](const float* x) { return Sources{{x, x, x, x}}; };
  const Index steps = fetch_steps(job);
  Fetch fetch = make_fetch(job.fetch, steps), other = make_fetch(job.fetch_other, steps);
  product<Sum::kX, Sum::kX>(job, alone(a11), alone(b11), 0, fetch, other);
  product<Sum::kX, Sum::kX>(job, alone(a12), alone(b21), 1, fetch, other);
  product<Sum::kAlternating, Sum::kX>(job, s4, alone(b22), 2, fetch, other);
  product<Sum::kX, Sum::kAlternating>(job, alone(a22), t4, 3, fetch, other);
  product<Sum::kXPlusY, Sum::kXMinusY>(job, s1, t1, 4, fetch, other);
  // T2 is T4 without B21.
  product<Sum::kXMinusYPlusZ, Sum::kXMinusYPlusZ>(job, s2, t4, 5, fetch, other);
  product<Sum::kXMinusY, Sum::kXMinusY>(job, s3, t3, 6, fetch, other);
}

void strassen_grad_result(const StrassenGradResult& job) {
  for (Index i = 0; i < job.outputs; ++i) {
    const Index panels = (job.outputs + kScalars - 1) / kScalars;
    float* row = job.c + i * job.c_pitch;
    const float* from = job.sums + i / kScalars * kTile + i % kScalars * kBlock;
    for (Index j = 0; j < job.inputs; j += kBlock, from += panels * kTile)
      for (Index v = 0; v < kBlock; v += kLanes) {
        Vec p[kStrassenGradProducts];
#pragma GCC unroll 7
        for (int k = 0; k < kStrassenGradProducts; ++k) p[k] = load(from + k * job.plane + v);
        const Vec u2 = p[0] + p[5], u3 = u2 + p[6], u4 = u2 + p[4];
        float* to = row + j + v;
        store(to, p[0] + p[1]);
        store(to + job.inputs, u4 + p[2]);
        store(to + job.c_half, u3 - p[3]);
        store(to + job.c_half + job.inputs, u3 + p[4]);
      }
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
