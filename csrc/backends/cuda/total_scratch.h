#pragma once
#include <cstdint>

// What sums over many elements (totals.h) want of scratch.
namespace pycnn::cuda {

constexpr int kTotalThreads = 256;
constexpr std::int64_t kTotalPiece = 16 * kTotalThreads;

inline std::int64_t total_pieces(std::int64_t count) {
  return (count + kTotalPiece - 1) / kTotalPiece;
}
inline std::int64_t total_scratch_bytes(std::int64_t count) {
  return total_pieces(count) * static_cast<std::int64_t>(sizeof(double));
}

}  // namespace pycnn::cuda
