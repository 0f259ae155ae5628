#pragma once
#include <algorithm>
#include <cstdint>

#include "backends/cpu/convert.h"

// Element-wise kernels on bfloat16: a piece at a time is widened into the first cache, computed in
// float32 and rounded. Memory, which such kernels wait for, sees two bytes an element.
namespace pycnn::cpu {

constexpr std::int64_t kBFloat16Piece = 1024;

// Whether results are numbers of bfloat16 already, as those that choose among such numbers.
enum class Results : bool { kRounded, kExact };

// y[i] = f(x)[i]: calls f(values, position, count), which works in place. y may be x.
template <class F>
void in_pieces(const ConvertFunctions& convert, const BFloat16* x, BFloat16* y, std::int64_t n,
               const F& f, Results results = Results::kRounded) noexcept {
  const auto store = results == Results::kExact ? convert.cut : convert.narrow;
  alignas(64) float values[kBFloat16Piece];
  for (std::int64_t i = 0; i < n; i += kBFloat16Piece) {
    const std::int64_t count = std::min(kBFloat16Piece, n - i);
    convert.widen(x + i, values, count);
    f(values, i, count);
    store(values, y + i, count);
  }
}

// Of two arrays: calls f(a, b, count), which leaves the result in a.
template <class F>
void in_pieces(const ConvertFunctions& convert, const BFloat16* a, const BFloat16* b, BFloat16* y,
               std::int64_t n, const F& f, Results results = Results::kRounded) noexcept {
  alignas(64) float second[kBFloat16Piece];
  in_pieces(
      convert, a, y, n,
      [&](float* first, std::int64_t i, std::int64_t count) {
        convert.widen(b + i, second, count);
        f(first, second, count);
      },
      results);
}

}  // namespace pycnn::cpu
