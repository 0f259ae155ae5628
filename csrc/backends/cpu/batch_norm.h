#pragma once
#include <cstdint>

// Inner loops of batch normalisation, built once per instruction set (batch_norm.isa.cpp). All work
// on a matrix of contiguous rows of `width` floats; columns never mix, so NaN stays in its column.
// Nothing needs alignment; outputs may be the same memory as inputs of the same size.
namespace pycnn::cpu {

// An activation made of straight pieces, on vectors of floats: x below `low` becomes slope * x, or
// 0 where `keep` is 0, and above `high` becomes `high`. NaN as a bound never holds. The slope is 1
// between the bounds; at a bound and beyond it is `slope` and, behind `high`, 0.
struct Rectifier {
  float low, high, slope;
  std::int32_t keep;  // all bits, or none where slope * x is to be 0 even for infinite x
};

// What a gradient passes on its way back: the slope of the rectifier at
// (x - mean) * factor + offset.
struct Gate {
  const float* factor;
  const float* offset;
  Rectifier rectifier;
};

#define PYCNN_DECLARE_BATCH_NORM(ISA)                                                              \
  namespace ISA {                                                                                  \
  /* Per column: the mean as pivot + mean, since float alone may be too coarse for it, and the sum \
     of (x - mean)^2. Two passes over blocks of rows; blocks are joined by the formula of Chan,    \
     Golub and LeVeque (1979). `rows` is at least 1. Continues what `before` rows                  \
     began, whole blocks of batch_norm_block_rows. */                                              \
  void column_statistics(const float* x, std::int64_t rows, std::int64_t width,                    \
                         std::int64_t before, float* pivot, float* mean, float* m2) noexcept;      \
  /* Per column: sum of g, and sum of g * (x - mean). Not `first`: continues likewise. */          \
  void column_gradient_sums(const float* x, const float* g, std::int64_t rows, std::int64_t width, \
                            bool first, const float* mean, float* sum, float* product) noexcept;   \
  /* y = (x - mean) * factor + shift */                                                            \
  void normalize_rows(const float* x, float* y, std::int64_t rows, std::int64_t width,             \
                      const float* mean, const float* factor, const float* shift) noexcept;        \
  /* y = rectifier((x - mean) * factor + shift + residual); `residual` may be null */              \
  void apply_rows(const float* x, const float* residual, float* y, std::int64_t rows,              \
                  std::int64_t width, const float* mean, const float* factor, const float* shift,  \
                  const Rectifier& rectifier) noexcept;                                            \
  /* As column_gradient_sums and gradient_rows, of what the gate leaves of g. */                   \
  void gated_gradient_sums(const float* x, const float* g, std::int64_t rows, std::int64_t width,  \
                           bool first, const float* mean, const Gate& gate, float* sum,            \
                           float* product) noexcept;                                               \
  void gated_gradient_rows(const float* x, const float* g, float* grad_input, std::int64_t rows,   \
                           std::int64_t width, const float* mean, const float* a, const float* b,  \
                           const float* c, const Gate& gate) noexcept;                             \
  /* grad_input = a * g + b * (x - mean) + c */                                                    \
  void gradient_rows(const float* x, const float* g, float* grad_input, std::int64_t rows,         \
                     std::int64_t width, const float* mean, const float* a, const float* b,        \
                     const float* c) noexcept;                                                     \
  /* y = x * factor */                                                                             \
  void scale_rows(const float* x, float* y, std::int64_t rows, std::int64_t width,                 \
                  const float* factor) noexcept;                                                   \
  }
PYCNN_DECLARE_BATCH_NORM(baseline)
PYCNN_DECLARE_BATCH_NORM(avx2)
PYCNN_DECLARE_BATCH_NORM(avx512)
#undef PYCNN_DECLARE_BATCH_NORM

// Rows of one block: a function of the width alone. A block of 16 KB stays in the first cache.
constexpr std::int64_t batch_norm_block_rows(std::int64_t width) noexcept {
  const std::int64_t rows = 4096 / (width > 0 ? width : 1);
  return rows < 16 ? 16 : rows > 256 ? 256 : rows;
}

}  // namespace pycnn::cpu
