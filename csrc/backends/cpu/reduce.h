#pragma once
#include <cstdint>

// Contract of reduce.isa.cpp.
namespace pycnn::cpu {

// Sums the columns of a matrix, rows `stride` elements apart, the last one followed by a beginning
// of a further row, `tail` < columns elements long. Then the columns are folded: `fold` (a power of
// two) groups of columns / fold of them are added up in a binary tree. With fold > 1 or a tail
// there are at most kFoldColumns columns.
struct FoldedColumnSums {
  const float* input;
  float* output;  // columns / fold elements
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t stride;
  std::int64_t tail;
  std::int64_t fold;
};
constexpr std::int64_t kFoldColumns = 64;

struct ReduceFunctions {
  void (*column_sums)(const FoldedColumnSums& sums);
  // output[r] = sum of the n elements of row r
  void (*row_sums)(const float* input, std::int64_t rows, std::int64_t n, float* output);
};

namespace baseline {
extern const ReduceFunctions kReduce;
}
namespace avx2 {
extern const ReduceFunctions kReduce;
}
namespace avx512 {
extern const ReduceFunctions kReduce;
}

}  // namespace pycnn::cpu
