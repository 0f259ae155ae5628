#include "backends/cpu/strassen_grad.h"

#include "backends/cpu/simd.isa.h"

// A call reads a source once: the sums of all products are made of it together. Those of the right
// sides last for the call, those of the left sides for a group of panels: with as many channels as
// deep layers have, all sums would not stay in the second cache.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr int kScalars = static_cast<int>(kGemmScalars);
constexpr Index kBlock = 2 * kLanes;
constexpr Index kTile = kScalars * kBlock;
constexpr Index kPanel = 16;  // floats of a pair in a panel: a line
static_assert(kScalars <= kLanes && kLanes <= kPanel);
constexpr Index kGroup = kStrassenGroup;
constexpr Index kProducts = kStrassenGradProducts;

// A pair more than there are: what products have of the same pair would share a set of the nearest
// cache.
Index panel_floats(Index pairs) { return (pairs + 1) * kPanel; }
Index block_floats(Index pairs) { return (pairs + 1) * kBlock; }

// ---- Sums of operands

// Of up to a vector of both halves of both pixels' gradients.
PYCNN_INLINE void sum_left(Vec a11, Vec a12, Vec a21, Vec a22, Index product_floats, float* to) {
  const Vec s1 = a21 + a22, s2 = s1 - a11;
  const Vec sums[kProducts] = {a11, a12, a12 - s2, a22, s1, s2, a11 - a21};
#pragma GCC unroll 7
  for (int i = 0; i < kProducts; ++i) store(to + i * product_floats, sums[i]);
}

// Likewise of inputs.
PYCNN_INLINE void sum_right(Vec b11, Vec b12, Vec b21, Vec b22, Index product_floats, float* to) {
  const Vec t1 = b12 - b11, t2 = b22 - t1;
  const Vec sums[kProducts] = {b11, b21, b22, t2 - b21, t1, t2, b22 - b12};
#pragma GCC unroll 7
  for (int i = 0; i < kProducts; ++i) store(to + i * product_floats, sums[i]);
}

// [product][panel][pair][kPanel], of `outputs` outputs from `grad` on.
void sum_group(const StrassenGradUnit& job, const float* grad, Index outputs) {
  const Index panel = panel_floats(job.pairs), product_floats = kGroup * panel;
  const Index second = job.grad_pixel, upper = job.grad_half;
  float* to = job.panels;
  for (Index pair = 0; pair < job.pairs; ++pair, grad += 2 * job.grad_pixel, to += kPanel) {
    float* sums = to;
    const float* from = grad;
    Index left = outputs;
    for (; left >= kScalars; left -= kScalars, from += kScalars, sums += panel)
      sum_left(load_lanes(from, kScalars), load_lanes(from + second, kScalars),
               load_lanes(from + upper, kScalars), load_lanes(from + upper + second, kScalars),
               product_floats, sums);
    const int rest = static_cast<int>(left);
    if (rest > 0)
      sum_left(load_lanes(from, rest), load_lanes(from + second, rest),
               load_lanes(from + upper, rest), load_lanes(from + upper + second, rest),
               product_floats, sums);
  }
}

constexpr Index kAhead = 4;  // pairs whose inputs come near before they are summed

// [product][block][pair][kBlock], of all inputs.
void sum_inputs(const StrassenGradUnit& job) {
  const Index block = block_floats(job.pairs), product_floats = job.inputs / kBlock * block;
  float* to = job.blocks;
  for (Index pair = 0; pair < job.pairs; ++pair, to += kBlock) {
    const Index* pixels = job.pixels + 2 * pair;
    const Index* later = pair + kAhead < job.pairs ? pixels + 2 * kAhead : pixels;
    const bool has_first = pixels[0] != kNoPixel, has_second = pixels[1] != kNoPixel;
    // Without a pixel, whatever is there is not read.
    const float* first = job.input + (has_first ? pixels[0] : 0);
    const float* second = job.input + (has_second ? pixels[1] : 0);
    const float* near_first = job.input + (later[0] != kNoPixel ? later[0] : 0);
    const float* near_second = job.input + (later[1] != kNoPixel ? later[1] : 0);
    float* sums = to;
    for (Index c = 0; c < job.inputs; c += kBlock, sums += block)
#pragma GCC unroll 2
      for (Index v = 0; v < kBlock; v += kLanes) {
        const Index at = c + v;
        __builtin_prefetch(near_first + at);
        __builtin_prefetch(near_first + job.input_half + at);
        __builtin_prefetch(near_second + at);
        __builtin_prefetch(near_second + job.input_half + at);
        sum_right(has_first ? load(first + at) : zero(),
                  has_first ? load(first + job.input_half + at) : zero(),
                  has_second ? load(second + at) : zero(),
                  has_second ? load(second + job.input_half + at) : zero(), product_floats,
                  sums + v);
      }
  }
}

// ---- Products

// Pairs between which lines of the sums are asked for: many at once would take all the buffers that
// what is read here needs.
constexpr Index kRun = 8;

// Multiplies a panel with a block. What is added to in the end comes near in the meantime.
template <int kCount>
void multiply_panel(const float* x, const float* y, Index pairs, float* c, bool accumulate) {
  Vec sum[kCount][2];
#pragma GCC unroll 14
  for (int i = 0; i < kCount; ++i) sum[i][0] = sum[i][1] = zero();
  constexpr Index kLine = 16;  // floats
  constexpr Index kLines = kCount * kBlock / kLine;
  const Index each = (kLines * kRun + pairs - 1) / pairs;
  Index line = accumulate ? 0 : kLines;
  for (Index first = 0; first < pairs; first += kRun) {
    const Index end = line + each < kLines ? line + each : kLines;
    for (; line < end; ++line) __builtin_prefetch(c + line * kLine, 1);
    const Index count = pairs - first < kRun ? pairs - first : kRun;
    for (Index pair = 0; pair < count; ++pair, x += kPanel, y += kBlock) {
      const Vec low = load(y), high = load(y + kLanes);
#pragma GCC unroll 14
      for (int i = 0; i < kCount; ++i) {
        const Vec xv = broadcast(x[i]);
        sum[i][0] = fma(xv, low, sum[i][0]);
        sum[i][1] = fma(xv, high, sum[i][1]);
      }
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* to = c + i * kBlock + v * kLanes;
      store(to, accumulate ? sum[i][v] + load(to) : sum[i][v]);
    }
}

using PanelKernel = void (*)(const float*, const float*, Index, float*, bool);
// Index: outputs - 1.
constexpr PanelKernel kKernels[] = {
    multiply_panel<1>,  multiply_panel<2>,  multiply_panel<3>,  multiply_panel<4>,
    multiply_panel<5>,  multiply_panel<6>,  multiply_panel<7>,  multiply_panel<8>,
    multiply_panel<9>,  multiply_panel<10>, multiply_panel<11>, multiply_panel<12>,
    multiply_panel<13>, multiply_panel<14>,
};
static_assert(sizeof kKernels / sizeof *kKernels == kScalars);

// All products of a group of panels, `outputs` outputs from panel `first` on.
void multiply_group(const StrassenGradUnit& job, Index first, Index outputs) {
  const Index all = (job.outputs + kScalars - 1) / kScalars, blocks = job.inputs / kBlock;
  const Index panel = panel_floats(job.pairs), block = block_floats(job.pairs);
  for (Index product = 0; product < kProducts; ++product)
    for (Index j = 0; j < blocks; ++j) {
      const float* y = job.blocks + (product * blocks + j) * block;
      const float* x = job.panels + product * kGroup * panel;
      float* c = job.sums + product * job.plane + (j * all + first) * kTile;
      for (Index left = outputs; left > 0; left -= kScalars, x += panel, c += kTile)
        kKernels[(left < kScalars ? left : kScalars) - 1](x, y, job.pairs, c, job.accumulate);
    }
}

}  // namespace

Index strassen_grad_panel_floats(Index pairs) { return kProducts * kGroup * panel_floats(pairs); }

Index strassen_grad_block_floats(Index pairs, Index inputs) {
  return kProducts * (inputs / kBlock) * block_floats(pairs);
}

void strassen_grad_products(const StrassenGradUnit& job) {
  const Index panels = (job.outputs + kScalars - 1) / kScalars, width = kGroup * kScalars;
  sum_inputs(job);
  for (Index first = 0; first < panels; first += kGroup) {
    const Index at = first * kScalars, left = job.outputs - at;
    const Index outputs = left < width ? left : width;
    sum_group(job, job.grad + at, outputs);
    multiply_group(job, first, outputs);
  }
}

void strassen_grad_result(const StrassenGradResult& job) {
  const Index panels = (job.outputs + kScalars - 1) / kScalars;
  for (Index i = 0; i < job.outputs; ++i) {
    float* row = job.c + i * job.c_pitch;
    const float* from = job.sums + i / kScalars * kTile + i % kScalars * kBlock;
    for (Index j = 0; j < job.inputs; j += kBlock, from += panels * kTile)
      for (Index v = 0; v < kBlock; v += kLanes) {
        Vec p[kProducts];
#pragma GCC unroll 7
        for (int k = 0; k < kProducts; ++k) p[k] = load(from + k * job.plane + v);
        const Vec u2 = p[0] + p[5], u3 = u2 + p[6], u4 = u2 + p[4];
        float* to = row + j + v;
        store(to, p[0] + p[1]);
        store(to + job.c_right, u4 + p[2]);
        store(to + job.c_lower, u3 - p[3]);
        store(to + job.c_lower + job.c_right, u3 + p[4]);
      }
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
