#include "backends/cpu/batch_norm.h"

#include "backends/cpu/simd.isa.h"

namespace pycnn::cpu::PYCNN_ISA {

using Index = std::int64_t;

// Blocks are read by columns, which the hardware does not see coming: at `row`, its place in the
// next block is called into L2, where `ahead` is not 0. (L1 is full of this block.)
template <int kVectors>
PYCNN_INLINE void fetch_ahead(const float* row, Index ahead) {
  if (ahead == 0) return;
  for (int v = 0; v < kVectors; ++v) __builtin_prefetch(row + ahead + v * kLanes, 0, 2);
}

// From a block to the next: 0 where that is not whole.
PYCNN_INLINE Index next_block(Index begin, Index block, Index rows, Index width) {
  return begin + 2 * block <= rows ? block * width : 0;
}

// kVectors vectors side by side, or (kVectors = 1) a part of one: as many independent sums as hide
// the latency of an addition.
template <int kVectors>
PYCNN_INLINE void block_statistics(const float* x, Index rows, Index width, Index ahead,
                                   Index rows_before, float* pivot, float* mean, float* m2,
                                   int lanes) {
  Vec sum[kVectors] = {};
  const float* row = x;
  for (Index r = 0; r < rows; ++r, row += width) {
    fetch_ahead<kVectors>(row, ahead);
    for (int v = 0; v < kVectors; ++v) sum[v] += load_lanes(row + v * kLanes, lanes);
  }
  const Vec n = broadcast(static_cast<float>(rows));
  Vec center[kVectors], drift[kVectors] = {}, squares[kVectors] = {};
  for (int v = 0; v < kVectors; ++v) center[v] = sum[v] / n;
  row = x;
  for (Index r = 0; r < rows; ++r, row += width)
    for (int v = 0; v < kVectors; ++v) {
      const Vec d = load_lanes(row + v * kLanes, lanes) - center[v];
      drift[v] += d;
      squares[v] = fma(d, d, squares[v]);
    }
  for (int v = 0; v < kVectors; ++v) {
    // `center` carries the rounding of the sum; the mean of what is left corrects it. The pivot is
    // the center of the first block, so differences of centers are nearly exact.
    const Vec correction = drift[v] / n;
    Vec block_mean = correction;
    Vec block_m2 = squares[v] - drift[v] * correction;
    if (rows_before == 0) {
      store_lanes(pivot + v * kLanes, center[v], lanes);
    } else {
      const float before = static_cast<float>(rows_before), here = static_cast<float>(rows);
      const Vec old_mean = load_lanes(mean + v * kLanes, lanes);
      block_mean += center[v] - load_lanes(pivot + v * kLanes, lanes);
      const Vec delta = block_mean - old_mean;
      block_mean = fma(delta, broadcast(here / (before + here)), old_mean);
      block_m2 += load_lanes(m2 + v * kLanes, lanes);
      block_m2 = fma(delta * delta, broadcast(before * (here / (before + here))), block_m2);
    }
    store_lanes(mean + v * kLanes, block_mean, lanes);
    store_lanes(m2 + v * kLanes, block_m2, lanes);
  }
}

void column_statistics(const float* x, Index rows, Index width, Index before, float* pivot,
                       float* mean, float* m2) noexcept {
  const Index block = batch_norm_block_rows(width);
  for (Index begin = 0; begin < rows; begin += block) {
    const Index count = begin + block < rows ? block : rows - begin;
    const float* const p = x + begin * width;
    const Index ahead = next_block(begin, block, rows, width), past = before + begin;
    Index c = 0;
    for (; c + 4 * kLanes <= width; c += 4 * kLanes)
      block_statistics<4>(p + c, count, width, ahead, past, pivot + c, mean + c, m2 + c, kLanes);
    for (; c + kLanes <= width; c += kLanes)
      block_statistics<1>(p + c, count, width, ahead, past, pivot + c, mean + c, m2 + c, kLanes);
    if (c < width)
      block_statistics<1>(p + c, count, width, ahead, past, pivot + c, mean + c, m2 + c,
                          static_cast<int>(width - c));
  }
}

PYCNN_INLINE Vec rectified(Vec x, const Rectifier& r) {
  const Vec low = broadcast(r.low), high = broadcast(r.high);
  const Vec below = as_float(as_int(broadcast(r.slope) * x) & r.keep);
  x = select(x < low, below, x);
  return select(x > high, high, x);
}

// What the gate leaves of a gradient; `column` is its place in the row. Without kGated all.
template <bool kGated>
PYCNN_INLINE Vec passed(Vec grad, Vec centered, const Gate* gate, Index column, int lanes) {
  if constexpr (!kGated) return grad;
  const Rectifier& r = gate->rectifier;
  const Vec y = fma(centered, load_lanes(gate->factor + column, lanes),
                    load_lanes(gate->offset + column, lanes));
  const Vec below = as_float(as_int(broadcast(r.slope) * grad) & r.keep);
  return select(y >= broadcast(r.high), zero(), select(y <= broadcast(r.low), below, grad));
}

template <int kVectors, bool kGated>
PYCNN_INLINE void block_gradient_sums(const float* x, const float* g, Index rows, Index width,
                                      Index ahead, bool first, const float* mean, const Gate* gate,
                                      Index column, float* sum, float* product, int lanes) {
  Vec sums[kVectors] = {}, products[kVectors] = {}, center[kVectors];
  for (int v = 0; v < kVectors; ++v) center[v] = load_lanes(mean + column + v * kLanes, lanes);
  for (Index r = 0; r < rows; ++r, x += width, g += width) {
    fetch_ahead<kVectors>(x + column, ahead);
    fetch_ahead<kVectors>(g + column, ahead);
    for (int v = 0; v < kVectors; ++v) {
      const Index at = column + v * kLanes;
      const Vec centered = load_lanes(x + at, lanes) - center[v];
      const Vec grad = passed<kGated>(load_lanes(g + at, lanes), centered, gate, at, lanes);
      sums[v] += grad;
      products[v] = fma(grad, centered, products[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    const Index at = column + v * kLanes;
    if (!first) {
      sums[v] += load_lanes(sum + at, lanes);
      products[v] += load_lanes(product + at, lanes);
    }
    store_lanes(sum + at, sums[v], lanes);
    store_lanes(product + at, products[v], lanes);
  }
}

template <bool kGated>
PYCNN_INLINE void gradient_sums(const float* x, const float* g, Index rows, Index width,
                                bool from_zero, const float* mean, const Gate* gate, float* sum,
                                float* product) {
  const Index block = batch_norm_block_rows(width);
  for (Index begin = 0; begin < rows; begin += block) {
    const Index count = begin + block < rows ? block : rows - begin;
    const float *const from = x + begin * width, *const grads = g + begin * width;
    const bool first = from_zero && begin == 0;
    const Index ahead = next_block(begin, block, rows, width);
    Index c = 0;
    for (; c + 4 * kLanes <= width; c += 4 * kLanes)
      block_gradient_sums<4, kGated>(from, grads, count, width, ahead, first, mean, gate, c, sum,
                                     product, kLanes);
    for (; c < width; c += kLanes)
      block_gradient_sums<1, kGated>(from, grads, count, width, ahead, first, mean, gate, c, sum,
                                     product,
                                     c + kLanes <= width ? kLanes : static_cast<int>(width - c));
  }
}

void column_gradient_sums(const float* x, const float* g, Index rows, Index width, bool first,
                          const float* mean, float* sum, float* product) noexcept {
  gradient_sums<false>(x, g, rows, width, first, mean, nullptr, sum, product);
}

void gated_gradient_sums(const float* x, const float* g, Index rows, Index width, bool first,
                         const float* mean, const Gate& gate, float* sum, float* product) noexcept {
  gradient_sums<true>(x, g, rows, width, first, mean, &gate, sum, product);
}

PYCNN_INLINE Vec normalized(const float* x, const float* mean, const float* factor,
                            const float* shift, int lanes) {
  return fma(load_lanes(x, lanes) - load_lanes(mean, lanes), load_lanes(factor, lanes),
             load_lanes(shift, lanes));
}

void normalize_rows(const float* x, float* y, Index rows, Index width, const float* mean,
                    const float* factor, const float* shift) noexcept {
  for (Index r = 0; r < rows; ++r, x += width, y += width) {
    Index c = 0;
    for (; c + kLanes <= width; c += kLanes)
      store(y + c, normalized(x + c, mean + c, factor + c, shift + c, kLanes));
    if (c < width) {
      const int lanes = static_cast<int>(width - c);
      store_partial(y + c, normalized(x + c, mean + c, factor + c, shift + c, lanes), lanes);
    }
  }
}

template <bool kResidual>
PYCNN_INLINE void apply(const float* x, const float* residual, float* y, Index rows, Index width,
                        const float* mean, const float* factor, const float* shift,
                        const Rectifier& rectifier) {
  const Rectifier r = rectifier;
  for (Index n = 0; n < rows; ++n, x += width, y += width, residual += kResidual ? width : 0)
    for (Index c = 0; c < width; c += kLanes) {
      const int lanes = c + kLanes <= width ? kLanes : static_cast<int>(width - c);
      Vec value = normalized(x + c, mean + c, factor + c, shift + c, lanes);
      if constexpr (kResidual) value += load_lanes(residual + c, lanes);
      store_lanes(y + c, rectified(value, r), lanes);
    }
}

void apply_rows(const float* x, const float* residual, float* y, Index rows, Index width,
                const float* mean, const float* factor, const float* shift,
                const Rectifier& rectifier) noexcept {
  if (residual != nullptr)
    apply<true>(x, residual, y, rows, width, mean, factor, shift, rectifier);
  else
    apply<false>(x, nullptr, y, rows, width, mean, factor, shift, rectifier);
}

template <bool kGated>
PYCNN_INLINE void input_gradient(const float* x, const float* g, float* grad_input, Index rows,
                                 Index width, const float* mean, const float* a, const float* b,
                                 const float* c, const Gate* gate) {
  for (Index r = 0; r < rows; ++r, x += width, g += width, grad_input += width) {
    for (Index i = 0; i < width; i += kLanes) {
      const int lanes = i + kLanes <= width ? kLanes : static_cast<int>(width - i);
      const Vec centered = load_lanes(x + i, lanes) - load_lanes(mean + i, lanes);
      const Vec grad = passed<kGated>(load_lanes(g + i, lanes), centered, gate, i, lanes);
      const Vec rest = fma(load_lanes(b + i, lanes), centered, load_lanes(c + i, lanes));
      store_lanes(grad_input + i, fma(load_lanes(a + i, lanes), grad, rest), lanes);
    }
  }
}

void gradient_rows(const float* x, const float* g, float* grad_input, Index rows, Index width,
                   const float* mean, const float* a, const float* b, const float* c) noexcept {
  input_gradient<false>(x, g, grad_input, rows, width, mean, a, b, c, nullptr);
}

void gated_gradient_rows(const float* x, const float* g, float* grad_input, Index rows, Index width,
                         const float* mean, const float* a, const float* b, const float* c,
                         const Gate& gate) noexcept {
  const Gate local = gate;
  input_gradient<true>(x, g, grad_input, rows, width, mean, a, b, c, &local);
}

void scale_rows(const float* x, float* y, Index rows, Index width, const float* factor) noexcept {
  for (Index r = 0; r < rows; ++r, x += width, y += width)
    for (Index i = 0; i < width; i += kLanes) {
      const int lanes = i + kLanes <= width ? kLanes : static_cast<int>(width - i);
      store_lanes(y + i, load_lanes(x + i, lanes) * load_lanes(factor + i, lanes), lanes);
    }
}

}  // namespace pycnn::cpu::PYCNN_ISA
