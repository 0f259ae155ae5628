#include "backends/cpu/reduce.h"

#include "backends/cpu/reduce.isa.h"

// Lanes are columns, so each column has one order of additions. Blocks of 16 rows are summed on
// their own, so that the rounding errors of long columns stay small.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr std::int64_t kBlockRows = 16;

template <int kVectors>
PYCNN_INLINE void sum_strip(const float* x, std::int64_t rows, std::int64_t stride, int lanes,
                            float* output) {
  Vec total[kVectors] = {};
  for (std::int64_t begin = 0; begin < rows; begin += kBlockRows) {
    const std::int64_t end = rows - begin < kBlockRows ? rows : begin + kBlockRows;
    Vec block[kVectors] = {};
    for (std::int64_t row = begin; row < end; ++row)
      for (int v = 0; v < kVectors; ++v)
        block[v] += load_lanes(x + row * stride + v * kLanes, lanes);
    for (int v = 0; v < kVectors; ++v) total[v] += block[v];
  }
  for (int v = 0; v < kVectors; ++v) store_lanes(output + v * kLanes, total[v], lanes);
}

PYCNN_INLINE void sum_columns(const float* x, const FoldedColumnSums& sums, float* output) {
  std::int64_t c = 0;
  for (; c + 4 * kLanes <= sums.columns; c += 4 * kLanes)
    sum_strip<4>(x + c, sums.rows, sums.stride, kLanes, output + c);
  for (; c + kLanes <= sums.columns; c += kLanes)
    sum_strip<1>(x + c, sums.rows, sums.stride, kLanes, output + c);
  if (c < sums.columns)
    sum_strip<1>(x + c, sums.rows, sums.stride, static_cast<int>(sums.columns - c), output + c);
}

void column_sums(const FoldedColumnSums& sums) {
  if (sums.fold == 1 && sums.tail == 0) return sum_columns(sums.input, sums, sums.output);
  float columns[kFoldColumns];
  sum_columns(sums.input, sums, columns);
  const float* tail = sums.input + sums.rows * sums.stride;
  for (std::int64_t c = 0; c < sums.tail; ++c) columns[c] += tail[c];
  const std::int64_t width = sums.columns / sums.fold;
  for (std::int64_t half = sums.fold / 2; half > 0; half /= 2)
    for (std::int64_t c = 0; c < half * width; ++c) columns[c] += columns[c + half * width];
  for (std::int64_t c = 0; c < width; ++c) sums.output[c] = columns[c];
}

void row_sums(const float* x, std::int64_t rows, std::int64_t n, float* output) {
  for (std::int64_t row = 0; row < rows; ++row, x += n)
    output[row] = sum_row(n, [&](std::int64_t i, int lanes) { return load_lanes(x + i, lanes); });
}

}  // namespace

extern const ReduceFunctions kReduce = {column_sums, row_sums};

}  // namespace pycnn::cpu::PYCNN_ISA
