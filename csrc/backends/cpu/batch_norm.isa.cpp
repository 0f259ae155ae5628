#include "backends/cpu/batch_norm.h"

#include "backends/cpu/batch_norm_bend.isa.h"
#include "backends/cpu/simd.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace batch_norm {
namespace {

using Index = std::int64_t;

// A number of vectors or rows, as a type.
template <int kNumber>
struct Count {
  static constexpr int kValue = kNumber;
};

// Calls f(vectors, column, lanes) for all columns: kMost vectors at a time, in the end one or a
// part of one.
template <int kMost, class F>
PYCNN_INLINE void for_vectors(Index width, const F& f) {
  Index c = 0;
  for (; c + kMost * kLanes <= width; c += kMost * kLanes) f(Count<kMost>{}, c, kLanes);
  for (; c < width; c += kLanes)
    f(Count<1>{}, c, c + kLanes <= width ? kLanes : static_cast<int>(width - c));
}

// ---- Sums by column
//
// Blocks of rows, and in them four vectors side by side: as many independent sums as hide the
// latency of an addition.

constexpr int kSumVectors = 4;

// A function of the width alone. 16 KB of floats stay in the first cache.
PYCNN_INLINE Index block_rows_of(Index width) {
  const Index rows = 4096 / width;
  return rows < 16 ? 16 : rows > 256 ? 256 : rows;
}

// Calls f(vectors, first row, rows, column, lanes, ahead) for all columns of all blocks of `block`
// rows; `ahead` are the rows to the next block, or 0.
template <class F>
PYCNN_INLINE void for_blocks(Index rows, Index width, Index block, const F& f) {
  for (Index begin = 0; begin < rows; begin += block) {
    const Index count = begin + block < rows ? block : rows - begin;
    const Index ahead = begin + 2 * block <= rows ? block : 0;
    for_vectors<kSumVectors>(
        width, [&](auto vectors, Index c, int lanes)
                   __attribute__((always_inline)) { f(vectors, begin, count, c, lanes, ahead); });
  }
}

// Blocks are read by columns, which the hardware does not see coming: at `row`, its place in the
// next block is called into L2, where `ahead` is not 0. (L1 is full of this block.)
template <int kVectors, class T>
PYCNN_INLINE void fetch_ahead(const T* row, Index ahead) {
  if (ahead == 0) return;
  constexpr int kLine = static_cast<int>(64 / sizeof(T));
  for (int i = 0; i < kVectors * kLanes; i += kLine) __builtin_prefetch(row + ahead + i, 0, 2);
}

// Joins a block, given as sums of distances from a center and of their squares, to the rows before.
template <int kVectors>
PYCNN_INLINE void join_block(const Vec (&center)[kVectors], const Vec (&drift)[kVectors],
                             const Vec (&squares)[kVectors], Index rows, Index rows_before,
                             float* pivot, float* mean, float* m2, int lanes) {
  const Vec n = broadcast(static_cast<float>(rows));
  for (int v = 0; v < kVectors; ++v) {
    // The center need not be the mean. The pivot is the center of the first block, so differences
    // of centers are nearly exact.
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

template <int kVectors, class T>
PYCNN_INLINE void block_statistics(const T* x, Index rows, Index width, Index ahead,
                                   Index rows_before, float* pivot, float* mean, float* m2,
                                   int lanes) {
  Vec sum[kVectors] = {}, row[kVectors];
  const T* p = x;
  for (Index r = 0; r < rows; ++r, p += width) {
    fetch_ahead<kVectors>(p, ahead);
    load_side_by_side(p, row, lanes);
    for (int v = 0; v < kVectors; ++v) sum[v] += row[v];
  }
  const Vec n = broadcast(static_cast<float>(rows));
  Vec center[kVectors], drift[kVectors] = {}, squares[kVectors] = {};
  for (int v = 0; v < kVectors; ++v) center[v] = sum[v] / n;
  p = x;
  for (Index r = 0; r < rows; ++r, p += width) {
    load_side_by_side(p, row, lanes);
    for (int v = 0; v < kVectors; ++v) {
      const Vec d = row[v] - center[v];
      drift[v] += d;
      squares[v] = fma(d, d, squares[v]);
    }
  }
  join_block<kVectors>(center, drift, squares, rows, rows_before, pivot, mean, m2, lanes);
}

template <class T>
void statistics(const T* x, Index rows, Index width, float* pivot, float* mean,
                float* m2) noexcept {
  for_blocks(
      rows, width, block_rows_of(width),
      [&](auto vectors, Index begin, Index count, Index c, int lanes, Index ahead)
          __attribute__((always_inline)) {
            block_statistics<vectors.kValue>(x + begin * width + c, count, width, ahead * width,
                                             begin, pivot + c, mean + c, m2 + c, lanes);
          });
}

// The center of a block is the mean of its first rows: where these are like no others, squares lose
// as many digits as the block is longer, sixteen times.
constexpr Index kCenterRows = 16, kNearRows = 256;

template <int kVectors, class T>
PYCNN_INLINE void near_block(const T* x, Index pitch, Index rows, Index rows_before, float* pivot,
                             float* mean, float* m2, int lanes) {
  Vec center[kVectors] = {}, drift[kVectors] = {}, squares[kVectors] = {}, row[kVectors];
  const Index count = rows < kCenterRows ? rows : kCenterRows;
  for (Index r = 0; r < count; ++r) {
    load_side_by_side(x + r * pitch, row, lanes);
    for (int v = 0; v < kVectors; ++v) center[v] += row[v];
  }
  const Vec n = broadcast(static_cast<float>(count));
  for (int v = 0; v < kVectors; ++v) center[v] = center[v] / n;
  for (Index r = 0; r < rows; ++r, x += pitch) {
    load_side_by_side(x, row, lanes);
    for (int v = 0; v < kVectors; ++v) {
      const Vec d = row[v] - center[v];
      drift[v] += d;
      squares[v] = fma(d, d, squares[v]);
    }
  }
  join_block<kVectors>(center, drift, squares, rows, rows_before, pivot, mean, m2, lanes);
}

template <class T>
void more_statistics(const T* x, const MoreRows& rows, float* pivot, float* mean,
                     float* m2) noexcept {
  const MoreRows more = rows;
  for (Index begin = 0; begin < more.rows; begin += kNearRows) {
    const Index count = more.rows - begin < kNearRows ? more.rows - begin : kNearRows;
    for_vectors<kSumVectors>(
        more.width, [&](auto vectors, Index c, int lanes) __attribute__((always_inline)) {
          near_block<vectors.kValue>(x + begin * more.pitch + c, more.pitch, count,
                                     more.before + begin, pivot + c, mean + c, m2 + c, lanes);
        });
  }
}

template <Bend kBend, int kVectors, class T>
PYCNN_INLINE void block_gradient_sums(const T* x, Index x_pitch, const T* g, Index g_pitch,
                                      Index rows, Index ahead, bool first, const float* mean,
                                      const Gate& gate, Index c, float* sum, float* product,
                                      int lanes) {
  Vec sums[kVectors] = {}, products[kVectors] = {}, row[kVectors], grad[kVectors];
  Vec center[kVectors], factor[kVectors], offset[kVectors];
  load_side_by_side(mean + c, center, lanes);
  if constexpr (kBend != Bend::kNone) {
    load_side_by_side(gate.factor + c, factor, lanes);
    load_side_by_side(gate.offset + c, offset, lanes);
  }
  for (Index r = 0; r < rows; ++r, x += x_pitch, g += g_pitch) {
    fetch_ahead<kVectors>(x, ahead * x_pitch);
    fetch_ahead<kVectors>(g, ahead * g_pitch);
    load_side_by_side(x, row, lanes);
    load_side_by_side(g, grad, lanes);
    for (int v = 0; v < kVectors; ++v) {
      const Vec centered = row[v] - center[v];
      if constexpr (kBend != Bend::kNone)
        grad[v] = passed_back<kBend>(grad[v], fma(centered, factor[v], offset[v]), gate.rectifier);
      sums[v] += grad[v];
      products[v] = fma(grad[v], centered, products[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    const Index at = c + v * kLanes;
    if (!first) {
      sums[v] += load_lanes(sum + at, lanes);
      products[v] += load_lanes(product + at, lanes);
    }
    store_lanes(sum + at, sums[v], lanes);
    store_lanes(product + at, products[v], lanes);
  }
}

template <Bend kBend, class T>
void gated_sums(const T* x, Index x_pitch, const T* g, const MoreRows& more, const float* mean,
                const Gate& gate, float* sum, float* product) {
  const Index pitch = more.pitch, before = more.before;
  // By all channels of x: whoever takes some of them has the same sums.
  for_blocks(
      more.rows, more.width, block_rows_of(x_pitch),
      [&](auto vectors, Index begin, Index count, Index c, int lanes, Index ahead)
          __attribute__((always_inline)) {
            block_gradient_sums<kBend, vectors.kValue>(
                x + begin * x_pitch + c, x_pitch, g + begin * pitch + c, pitch, count, ahead,
                before + begin == 0, mean, gate, c, sum, product, lanes);
          });
}

template <class T>
void gradient_sums(const T* x, Index pitch, const T* g, const MoreRows& rows, const float* mean,
                   const Gate* gate, float* sum, float* product) noexcept {
  if (gate == nullptr)
    gated_sums<Bend::kNone>(x, pitch, g, rows, mean, Gate{}, sum, product);
  else if (gate->rectifier.form == Rectifier::Form::kRelu)
    gated_sums<Bend::kRelu>(x, pitch, g, rows, mean, *gate, sum, product);
  else if (gate->rectifier.form == Rectifier::Form::kLeakyRelu)
    gated_sums<Bend::kLeakyRelu>(x, pitch, g, rows, mean, *gate, sum, product);
  else
    gated_sums<Bend::kAny>(x, pitch, g, rows, mean, *gate, sum, product);
}

// ---- A result for each element
//
// Row by row, as the memory lies: several rows at a time would share what is loaded for their
// columns, but take up to twice as long where they come from memory.

constexpr int kRowVectors = kVectorRegisters == 32 ? 2 : 1;

// Calls f(vectors, position, column, lanes) for all rows.
template <class F>
PYCNN_INLINE void for_rows(Index rows, Index width, const F& f) {
  for (Index r = 0; r < rows; ++r)
    for_vectors<kRowVectors>(
        width, [&](auto vectors, Index c, int lanes)
                   __attribute__((always_inline)) { f(vectors, r * width + c, c, lanes); });
}

// Of bfloat16 it gained nothing.
template <class T>
constexpr bool kMayStream = false;
template <>
constexpr bool kMayStream<float> = true;

// Streamed rows are whole vectors of float at lines of their own.
template <bool kStreamed, int kVectors, class T>
PYCNN_INLINE void put(T* to, const Vec (&value)[kVectors], int lanes) {
  if constexpr (kStreamed)
    for (int v = 0; v < kVectors; ++v) stream(to + v * kLanes, value[v]);
  else
    store_side_by_side(to, value, lanes);
}

template <int kVectors>
PYCNN_INLINE void normalise(Vec (&value)[kVectors], const ColumnNorm& norm, Index c, int lanes) {
  Vec means[kVectors], factors[kVectors], offsets[kVectors];
  load_side_by_side(norm.mean + c, means, lanes);
  load_side_by_side(norm.factor + c, factors, lanes);
  load_side_by_side(norm.offset + c, offsets, lanes);
  for (int v = 0; v < kVectors; ++v) value[v] = fma(value[v] - means[v], factors[v], offsets[v]);
}

enum class Added { kNothing, kResidual, kNormed };

template <bool kStreamed, Added kAdded, Bend kBend, class T>
void apply_bent(const T* x, const T* residual, T* y, Index rows, Index width,
                const ColumnNorm& norm, const ColumnNorm& residual_norm,
                const Rectifier& rectifier) {
  const Rectifier bend = rectifier;
  const ColumnNorm own = norm, other = residual_norm;
  for_rows(
      rows, width, [&](auto vectors, Index at, Index c, int lanes) __attribute__((always_inline)) {
        constexpr int kVectors = vectors.kValue;
        Vec value[kVectors], more[kVectors];
        load_side_by_side(x + at, value, lanes);
        if constexpr (kAdded != Added::kNothing) load_side_by_side(residual + at, more, lanes);
        normalise(value, own, c, lanes);
        if constexpr (kAdded == Added::kNormed) normalise(more, other, c, lanes);
        for (int v = 0; v < kVectors; ++v) {
          if constexpr (kAdded != Added::kNothing) value[v] += more[v];
          value[v] = activated<kBend>(value[v], bend);
        }
        put<kStreamed>(y + at, value, lanes);
      });
  if constexpr (kStreamed) end_streams();
}

template <bool kStreamed, Added kAdded, class T>
void apply_to(const T* x, const T* residual, T* y, Index rows, Index width, const ColumnNorm& norm,
              const ColumnNorm& residual_norm, const Rectifier* rectifier) {
  if (rectifier == nullptr)
    apply_bent<kStreamed, kAdded, Bend::kNone>(x, residual, y, rows, width, norm, residual_norm,
                                               {});
  else if (rectifier->form == Rectifier::Form::kRelu)
    apply_bent<kStreamed, kAdded, Bend::kRelu>(x, residual, y, rows, width, norm, residual_norm,
                                               {});
  else
    apply_bent<kStreamed, kAdded, Bend::kAny>(x, residual, y, rows, width, norm, residual_norm,
                                              *rectifier);
}

template <bool kStreamed, class T>
void apply_as(const T* x, const T* residual, T* y, Index rows, Index width, const ColumnNorm& norm,
              const ColumnNorm* residual_norm, const Rectifier* rectifier) {
  if (residual == nullptr)
    apply_to<kStreamed, Added::kNothing>(x, residual, y, rows, width, norm, {}, rectifier);
  else if (residual_norm == nullptr)
    apply_to<kStreamed, Added::kResidual>(x, residual, y, rows, width, norm, {}, rectifier);
  else
    apply_to<kStreamed, Added::kNormed>(x, residual, y, rows, width, norm, *residual_norm,
                                        rectifier);
}

template <class T>
void apply(const T* x, const T* residual, T* y, Index rows, Index width, const ColumnNorm& norm,
           const ColumnNorm* residual_norm, const Rectifier* rectifier,
           [[maybe_unused]] bool streamed) noexcept {
  if constexpr (kMayStream<T>)
    if (streamed)
      return apply_as<true>(x, residual, y, rows, width, norm, residual_norm, rectifier);
  apply_as<false>(x, residual, y, rows, width, norm, residual_norm, rectifier);
}

template <bool kStreamed, Bend kBend, class T>
void gated_gradient(const T* x, const T* g, T* grad_input, Index rows, Index width,
                    const float* mean, const float* a, const float* b, const float* c,
                    const Gate& gate) {
  const Gate local = gate;
  for_rows(
      rows, width, [&](auto vectors, Index at, Index i, int lanes) __attribute__((always_inline)) {
        constexpr int kVectors = vectors.kValue;
        Vec means[kVectors], as[kVectors], bs[kVectors], cs[kVectors];
        Vec factors[kVectors], offsets[kVectors];
        load_side_by_side(mean + i, means, lanes);
        load_side_by_side(a + i, as, lanes);
        load_side_by_side(b + i, bs, lanes);
        load_side_by_side(c + i, cs, lanes);
        if constexpr (kBend != Bend::kNone) {
          load_side_by_side(local.factor + i, factors, lanes);
          load_side_by_side(local.offset + i, offsets, lanes);
        }
        Vec value[kVectors], grad[kVectors];
        load_side_by_side(x + at, value, lanes);
        load_side_by_side(g + at, grad, lanes);
        for (int v = 0; v < kVectors; ++v) {
          const Vec centered = value[v] - means[v];
          if constexpr (kBend != Bend::kNone)
            grad[v] =
                passed_back<kBend>(grad[v], fma(centered, factors[v], offsets[v]), local.rectifier);
          value[v] = fma(as[v], grad[v], fma(bs[v], centered, cs[v]));
        }
        put<kStreamed>(grad_input + at, value, lanes);
      });
  if constexpr (kStreamed) end_streams();
}

template <bool kStreamed, class T>
void gradient_as(const T* x, const T* g, T* grad_input, Index rows, Index width, const float* mean,
                 const float* a, const float* b, const float* c, const Gate* gate) {
  if (gate == nullptr)
    gated_gradient<kStreamed, Bend::kNone>(x, g, grad_input, rows, width, mean, a, b, c, {});
  else if (gate->rectifier.form == Rectifier::Form::kRelu)
    gated_gradient<kStreamed, Bend::kRelu>(x, g, grad_input, rows, width, mean, a, b, c, *gate);
  else if (gate->rectifier.form == Rectifier::Form::kLeakyRelu)
    gated_gradient<kStreamed, Bend::kLeakyRelu>(x, g, grad_input, rows, width, mean, a, b, c,
                                                *gate);
  else
    gated_gradient<kStreamed, Bend::kAny>(x, g, grad_input, rows, width, mean, a, b, c, *gate);
}

template <class T>
void gradient(const T* x, const T* g, T* grad_input, Index rows, Index width, const float* mean,
              const float* a, const float* b, const float* c, const Gate* gate,
              [[maybe_unused]] bool streamed) noexcept {
  if constexpr (kMayStream<T>)
    if (streamed) return gradient_as<true>(x, g, grad_input, rows, width, mean, a, b, c, gate);
  gradient_as<false>(x, g, grad_input, rows, width, mean, a, b, c, gate);
}

template <class T>
void scale(const T* x, T* y, Index rows, Index width, const float* factor) noexcept {
  for_rows(
      rows, width, [&](auto vectors, Index at, Index c, int lanes) __attribute__((always_inline)) {
        Vec factors[vectors.kValue], value[vectors.kValue];
        load_side_by_side(factor + c, factors, lanes);
        load_side_by_side(x + at, value, lanes);
        for (int v = 0; v < vectors.kValue; ++v) value[v] *= factors[v];
        store_side_by_side(y + at, value, lanes);
      });
}

template <class T>
constexpr BatchNormFunctions<T> functions = {statistics<T>,    more_statistics<T>, apply<T>,
                                             gradient_sums<T>, gradient<T>,        scale<T>};

}  // namespace
}  // namespace batch_norm

extern const BatchNormFunctions<float> kBatchNorm = batch_norm::functions<float>;
extern const BatchNormFunctions<BFloat16> kBatchNormBFloat16 = batch_norm::functions<BFloat16>;

}  // namespace pycnn::cpu::PYCNN_ISA
