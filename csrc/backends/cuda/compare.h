#pragma once
#include "backends/cuda/block.h"
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// How far a result is from an expected one: by pieces of some rows, so that a few that are wrong
// show among many, in float64. NaN in either is NaN of its piece.
namespace pycnn::cuda {

struct Comparison {
  const void* expected;
  const void* actual;
  std::int64_t rows, channels, pitch;  // elements from row to row, of both
  std::int64_t piece;                  // rows
  double* sums;  // (piece, 2), of squares: of what was expected, of the differences

  PYCNN_BOTH std::int64_t pieces() const { return (rows + piece - 1) / piece; }
};

// At most that many pieces; of fewer elements each would be compared with few others.
constexpr std::int64_t kMostPieces = 1024, kPieceElements = 4096;
inline std::int64_t piece_rows(std::int64_t rows, std::int64_t channels) {
  const std::int64_t by_rows = (rows + kMostPieces - 1) / kMostPieces;
  const std::int64_t by_elements = (kPieceElements + channels - 1) / channels;
  return by_rows > by_elements ? by_rows : by_elements;
}

void compare(DeviceQueue& queue, Image image, const Comparison& comparison);

// A block has a piece.
template <class T, int Width>
struct CompareRows {
  static constexpr int kThreads = 256;
  struct Shared {
    double expected[kThreads], difference[kThreads];
  };
  struct Registers {};
  Comparison of;

  PYCNN_BOTH void operator()(Block<CompareRows>& block) const {
    const std::int64_t across = of.channels / Width;
    const std::int64_t first = block.index() * of.piece, rest = of.rows - first;
    const std::int64_t begin = first * across;
    const std::int64_t end = (first + (rest < of.piece ? rest : of.piece)) * across;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      double expected = 0.0, difference = 0.0;
      for (std::int64_t i = begin + thread; i < end; i += kThreads) {
        const std::int64_t at = i / across * of.pitch + i % across * Width;
        float e[Width], a[Width];
        load(static_cast<const T*>(of.expected) + at, Width, e);
        load(static_cast<const T*>(of.actual) + at, Width, a);
        PYCNN_UNROLL
        for (int k = 0; k < Width; ++k) {
          const auto x = static_cast<double>(e[k]), d = static_cast<double>(a[k]) - x;
          expected += x * x;
          difference += d * d;
        }
      }
      shared.expected[thread] = expected;
      shared.difference[thread] = difference;
    });
    block.last([&](int thread, Registers&) {
      if (thread >= 2) return;
      const double* const parts = thread == 0 ? shared.expected : shared.difference;
      double sum = 0.0;
      for (int i = 0; i < kThreads; ++i) sum += parts[i];
      of.sums[2 * block.index() + thread] = sum;
    });
  }
};

}  // namespace pycnn::cuda
