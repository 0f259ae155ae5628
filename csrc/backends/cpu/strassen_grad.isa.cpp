#include "backends/cpu/strassen_grad.h"

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
PYCNN_INLINE void ask_for(const Sources& s, Index near, Index last) {
  for (int i = 0; i < sources_of(kSum); ++i) {
    __builtin_prefetch(s.from[i] + near, 0, 2);
    __builtin_prefetch(s.from[i] + near + last, 0, 2);
  }
}

// One operand of a tile.
struct Operand {
  Sources sources;
  Index step = 0;  // of a source, from pair to pair
  Index next = 0;  // what is wanted after the last pair, from the first
  float* copy = nullptr;
};

// Multiplies a whole tile and makes the copy of one operand, or of none, on the way.
template <Sum kPanelSum, Sum kBlockSum>
void tile_kernel(Operand a, Operand b, Index pairs, float* c, bool accumulate) {
  constexpr bool kCopyA = kPanelSum != Sum::kCopied, kCopyB = kBlockSum != Sum::kCopied;
  Vec sum[kScalars][2];
#pragma GCC unroll 14
  for (int i = 0; i < kScalars; ++i) {
    // What is added to in the end comes near in the meantime.
    if (accumulate)
      for (Index at = 0; at < kBlock; at += 16) __builtin_prefetch(c + i * kBlock + at, 1);
    sum[i][0] = sum[i][1] = zero();
  }
  const float* x = a.copy;
  auto copy_a = [&](Index near) {
    copy_panel_pair<kPanelSum>(a.sources, a.copy);
    ask_for<kPanelSum>(a.sources, near, kScalars - 1);
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
      Vec y[2];
      if constexpr (kCopyB) {
        y[0] = add_up<kBlockSum>(b.sources, 0, kLanes);
        y[1] = add_up<kBlockSum>(b.sources, kLanes, kLanes);
        store(b.copy, y[0]);
        store(b.copy + kLanes, y[1]);
        ask_for<kBlockSum>(b.sources, near_b, kBlock - 1);
        move(b.sources, b.step);
      } else {
        y[0] = load(b.copy), y[1] = load(b.copy + kLanes);
      }
#pragma GCC unroll 14
      for (int i = 0; i < kScalars; ++i) {
        const Vec xv = broadcast(x[i]);
        sum[i][0] = fma(xv, y[0], sum[i][0]);
        sum[i][1] = fma(xv, y[1], sum[i][1]);
      }
      x += kPanel, b.copy += kBlock;
    }
    near_a = a.next - (pairs - near) * a.step;
    near_b = b.next - (pairs - near) * b.step;
  }
#pragma GCC unroll 14
  for (int i = 0; i < kScalars; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* to = c + i * kBlock + v * kLanes;
      store(to, accumulate ? sum[i][v] + load(to) : sum[i][v]);
    }
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
    ask_for<kSum>(a.sources, kNearAhead * a.step, outputs - 1);
    move(a.sources, a.step);
  }
}

template <Sum kSum>
void copy_block(Operand b, Index pairs) {
  for (Index pair = 0; pair < pairs; ++pair, b.copy += kBlock) {
    store(b.copy, add_up<kSum>(b.sources, 0, kLanes));
    store(b.copy + kLanes, add_up<kSum>(b.sources, kLanes, kLanes));
    ask_for<kSum>(b.sources, kNearAhead * b.step, kBlock - 1);
    move(b.sources, b.step);
  }
}

template <Sum kPanelSum, Sum kBlockSum>
void product(const StrassenGradPairs& job, const Sources& grads, const Sources& inputs, int index) {
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
      if (copy_a && (!whole || copy_b)) copy_panel<kPanelSum>(a, job.pairs, outputs);
      if (whole) {
        if (copy_b)
          tile_kernel<Sum::kCopied, kBlockSum>(a, b, job.pairs, c, job.accumulate);
        else if (copy_a)
          tile_kernel<kPanelSum, Sum::kCopied>(a, b, job.pairs, c, job.accumulate);
        else
          tile_kernel<Sum::kCopied, Sum::kCopied>(a, b, job.pairs, c, job.accumulate);
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
  product<Sum::kX, Sum::kX>(job, alone(a11), alone(b11), 0);
  product<Sum::kX, Sum::kX>(job, alone(a12), alone(b21), 1);
  product<Sum::kAlternating, Sum::kX>(job, s4, alone(b22), 2);
  product<Sum::kX, Sum::kAlternating>(job, alone(a22), t4, 3);
  product<Sum::kXPlusY, Sum::kXMinusY>(job, s1, t1, 4);
  product<Sum::kXMinusYPlusZ, Sum::kXMinusYPlusZ>(job, s2, t4, 5);  // T2 is T4 without B21
  product<Sum::kXMinusY, Sum::kXMinusY>(job, s3, t3, 6);
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
