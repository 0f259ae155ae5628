#pragma once
#include <cstdint>

#include "core/half_types.h"

// The inner loops of conv2d_tap_row_grad.cpp, for units that multiply pairs of bfloat16 and add to
// float32. Plain pointers and counts only: this header is read by .isa.cpp files. Pitches and
// distances count elements.
//
// Numerics: float32 sums, one fixed order (rows, then pixels) for each result. Denormal numbers may
// count as zero.
namespace pycnn::cpu {

constexpr std::int64_t kTapStep = 32;  // pixels that a step has room for: a cache line

// What each tap of a row meets, pixel by pixel, of some rows of an image:
//
//   to[((r * taps + t) * steps + s) * 32 + i] =
//       row r's element x * step + plane(t) + step * shift(t), x = s * 2 * pairs + i
//
// for i < 2 * pairs and x < columns, else 0; elements before `begin` and from `end` on are zero and
// not read. Tap t's place in `sorted` is plane(t) * plane_pitch + shift(t).
struct TapRows {
  const BFloat16* from = nullptr;  // element 0 of row 0
  std::int64_t from_row = 0, rows = 0;
  std::int64_t begin = 0, end = 0;
  std::int64_t step = 0;
  BFloat16* sorted = nullptr;  // scratch: of each row, its elements by position modulo the step
  std::int64_t plane = 0;      // of these, used
  std::int64_t plane_pitch = 0;
  const std::int64_t* places = nullptr;  // of each tap
  std::int64_t taps = 0, columns = 0;
  std::int64_t steps = 0, pairs = 0;
  BFloat16* to = nullptr;
};

// For taps t and output channels c < channels, at most 32:
//
//   sums[t * 32 + c] (+)= sum over rows r, pairs p < steps * pairs, i < 2 of
//                         input[r * input_row + t * input_tap + p / pairs * 32 + p % pairs * 2 +
//                         i] * grad[r * grad_row + 2 * (p * 32 + c) + i]
//
// Taps are read, and sums written, up to a multiple of 16.
struct TapRowSums {
  const BFloat16* input = nullptr;
  std::int64_t input_row = 0, input_tap = 0;
  const BFloat16* grad = nullptr;
  std::int64_t grad_row = 0;
  std::int64_t rows = 0, steps = 0, pairs = 0;  // at most 16 pairs in a step
  std::int64_t taps = 0, channels = 0;
  float* sums = nullptr;
  bool accumulate = false;
};

struct TapRowLoops {
  void (*rows)(const TapRows&);
  void (*sums)(const TapRowSums&);
};

namespace portable {
extern const TapRowLoops kTapRowLoops;
}
namespace amx {
extern const TapRowLoops kTapRowLoops;
}

}  // namespace pycnn::cpu
