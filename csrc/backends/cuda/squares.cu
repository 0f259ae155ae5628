#include <cmath>

#include "backends/cuda/map.h"
#include "backends/cuda/parts.h"
#include "backends/cuda/squares.h"
#include "backends/cuda/totals.h"

namespace pycnn::cuda {
namespace {

// The pieces of each tensor follow those of the one before.
struct SquareTable {
  int count;
  std::int32_t first_piece[kMostSquares + 1];
  Squares of[kMostSquares];
  PYCNN_BOTH int tensor_of(std::int64_t piece) const {
    return part_of(piece, count, [&](int i) { return first_piece[i]; });
  }
};
static_assert(kMostSquares < 128);

struct SquarePieces {
  static constexpr int kThreads = kTotalThreads;
  struct Shared {
    double sum[kThreads];
  };
  struct Registers {};
  SquareTable table;
  double* pieces;
  PYCNN_BOTH void operator()(Block<SquarePieces>& block) const {
    const int tensor = table.tensor_of(block.index());
    const Squares& of = table.of[tensor];
    const std::int64_t begin = (block.index() - table.first_piece[tensor]) * kTotalPiece;
    const std::int64_t end = begin + kTotalPiece < of.count ? begin + kTotalPiece : of.count;
    // All threads of a block go the same way.
    switch (of.type) {
      case Image::kFloat32:
        return add<float>(block, of.values, begin, end);
      case Image::kBFloat16:
        return add<BFloat16>(block, of.values, begin, end);
      case Image::kFloat16:
        return add<Float16>(block, of.values, begin, end);
    }
  }

 private:
  template <class T>
  PYCNN_BOTH void add(Block<SquarePieces>& block, const void* values, std::int64_t begin,
                      std::int64_t end) const {
    total_of_block(block, SquareTerm<T>{static_cast<const T*>(values)}, KeepPiece{pieces}, begin,
                   end);
  }
};

struct SquareTotals {
  static constexpr int kThreads = kTotalThreads;
  struct Shared {
    double sum[kThreads];
  };
  struct Registers {};
  SquareTable table;
  const double* pieces;
  double* totals;
  PYCNN_BOTH void operator()(Block<SquareTotals>& block) const {
    const auto tensor = static_cast<int>(block.index());
    total_of_block(block, PieceTerm{pieces}, KeepPiece{totals}, table.first_piece[tensor],
                   table.first_piece[tensor + 1]);
  }
};
static_assert(sizeof(SquareTotals) <= 4096);

struct ClipRule {
  static constexpr int kWidth = 1;
  const double* totals;
  int count;
  double max_norm;
  float* factor;
  float* norm;
  // A norm that is not finite gives NaN: a broken step shows.
  PYCNN_BOTH void operator()(std::int64_t, int) const {
    double sum = 0.0;
    for (int i = 0; i < count; ++i) sum += totals[i];
    const double length = sqrt(sum);
    double result = 1.0;
    if (max_norm <= 1.7976931348623157e308) {
      if (!(length <= 1.7976931348623157e308))
        result = static_cast<double>(float_of(0x7FC00000u));
      else if (length > max_norm)
        result = max_norm / length;
    }
    *factor = static_cast<float>(result);
    *norm = static_cast<float>(length);
  }
};

}  // namespace

void sums_of_squares(DeviceQueue& queue, const Squares* of, int count, double* totals,
                     double* pieces) {
  SquareTable table{count, {}, {}};
  for (int i = 0; i < count; ++i) {
    table.of[i] = of[i];
    table.first_piece[i + 1] =
        table.first_piece[i] + static_cast<std::int32_t>(total_pieces(of[i].count));
  }
  launch(queue, SquarePieces{table, pieces}, table.first_piece[count]);
  launch(queue, SquareTotals{table, pieces, totals}, count);
}

void clip_factor(DeviceQueue& queue, const double* totals, int count, double max_norm,
                 float* factor, float* norm) {
  launch_map(queue, ClipRule{totals, count, max_norm, factor, norm}, 1);
}

}  // namespace pycnn::cuda
