#pragma once
#include <cstdint>

#include "core/half_types.h"

// Inner loops of batch normalisation, built once per instruction set (batch_norm.isa.cpp). All work
// on a matrix of contiguous rows of `width` elements T, float or BFloat16; columns never mix, so
// NaN stays in its column. What a column has in common is float, and so is all arithmetic: results
// of BFloat16 are what those of float would be, rounded. Nothing needs alignment; outputs may be
// the same memory as inputs of the same size.
namespace pycnn::cpu {

// An activation made of straight pieces, on vectors of floats: x below `low` becomes slope * x, or
// 0 where `keep` is 0, and above `high` becomes `high`. NaN as a bound never holds. The slope is 1
// between the bounds; at a bound and beyond it is `slope` and, behind `high`, 0. That of NaN is 1
// but behind a leaky ReLU, where NaN is not above 0: `slope`.
struct Rectifier {
  enum class Form : std::uint8_t {
    kRelu,       // low is 0, and all below becomes it
    kLeakyRelu,  // low is 0, and there is no high
    kOther,
  };
  float low, high, slope;
  std::int32_t keep;  // all bits, or none where slope * x is to be 0 even for infinite x
  Form form;
};

// What becomes of x in a column: (x - mean) * factor + offset.
struct ColumnNorm {
  const float* mean;
  const float* factor;
  const float* offset;
};

// What a gradient passes on its way back: the slope of the rectifier at
// (x - mean) * factor + offset.
struct Gate {
  const float* factor;
  const float* offset;
  Rectifier rectifier;
};

// Rows that lie apart: `pitch` elements from one to the next. Results of `before` rows are there
// already, and these go on with them.
struct MoreRows {
  std::int64_t rows, width, pitch, before;
};

template <class T>
struct BatchNormFunctions {
  // Per column: the mean as pivot + mean, since float alone may be too coarse for it, and the sum
  // of (x - mean)^2. Two passes over blocks of rows; blocks are joined by the formula of Chan,
  // Golub and LeVeque (1979). `rows` is at least 1.
  void (*statistics)(const T* x, std::int64_t rows, std::int64_t width, float* pivot, float* mean,
                     float* m2) noexcept;
  // The same of rows that are near and may go on with others, in one pass over blocks of them: sums
  // of distances from the mean of a block's first rows.
  void (*more_statistics)(const T* x, const MoreRows& rows, float* pivot, float* mean,
                          float* m2) noexcept;
  // y = rectifier(norm(x) + residual_norm(residual)); each pointer but x, y may be null and is then
  // left out. `streamed`: y, of float, goes past the caches. It is no input then and begins at a
  // cache line, and rows are whole lines.
  void (*apply)(const T* x, const T* residual, T* y, std::int64_t rows, std::int64_t width,
                const ColumnNorm& norm, const ColumnNorm* residual_norm, const Rectifier* rectifier,
                bool streamed) noexcept;
  // Per column, of what the gate leaves of g: sum of g, and sum of g * (x - mean). A gate of null
  // leaves all. `rows` are those of g; those of x lie at `pitch`.
  void (*gradient_sums)(const T* x, std::int64_t pitch, const T* g, const MoreRows& rows,
                        const float* mean, const Gate* gate, float* sum, float* product) noexcept;
  // grad_input = a * g + b * (x - mean) + c, of what the gate leaves of g. `streamed` as above.
  void (*gradient)(const T* x, const T* g, T* grad_input, std::int64_t rows, std::int64_t width,
                   const float* mean, const float* a, const float* b, const float* c,
                   const Gate* gate, bool streamed) noexcept;
  // y = x * factor
  void (*scale)(const T* x, T* y, std::int64_t rows, std::int64_t width,
                const float* factor) noexcept;
};

#define PYCNN_DECLARE_BATCH_NORM(ISA)                           \
  namespace ISA {                                               \
  extern const BatchNormFunctions<float> kBatchNorm;            \
  extern const BatchNormFunctions<BFloat16> kBatchNormBFloat16; \
  }
PYCNN_DECLARE_BATCH_NORM(baseline)
PYCNN_DECLARE_BATCH_NORM(avx2)
PYCNN_DECLARE_BATCH_NORM(avx512)
#undef PYCNN_DECLARE_BATCH_NORM

}  // namespace pycnn::cpu
