#pragma once
#include <algorithm>
#include <cstdint>

#include "backends/cpu/convert.h"

// Element-wise kernels on bfloat16: a piece at a time is widened into the first cache, computed in
// float32 and rounded. Memory, which such kernels wait for, sees two bytes an element.
namespace pycnn::cpu {

constexpr std::int64_t kBFloat16Piece = 1024;

// y[i] = f(x)[i]: calls f(values, position, count), which works in place. y may be x.
template <class F>
void in_pieces(const ConvertFunctions& convert, const BFloat16* x, BFloat16* y, std::int64_t n,
               const F& f) noexcept {
  alignas(64) float values[kBFloat16Piece];
  for (std::int64_t i = 0; i < n; i += kBFloat16Piece) {
    const std::int64_t count = std::min(kBFloat16Piece, n - i);
    convert.widen(x + i, values, count);
    f(values, i, count);
    convert.narrow(values, y + i, count);
  }
}

// Of two arrays: calls f(a, b, count), which leaves the result in a.
template <class F>
void in_pieces(const ConvertFunctions& convert, const BFloat16* a, const BFloat16* b, BFloat16* y,
               std::int64_t n, const F& f) noexcept {
  alignas(64) float second[kBFloat16Piece];
  in_pieces(convert, a, y, n, [&](float* first, std::int64_t i, std::int64_t count) {
    convert.widen(b + i, second, count);
    f(first, second, count);
  });
}

}  // namespace pycnn::cpu
