#pragma once
#include <cstdint>

#include "core/half_types.h"

// The inner loops of conv2d_row_pair_grad.cpp, for units that multiply pairs of bfloat16 and add to
// float32. Plain pointers and counts only: this header is read by .isa.cpp files. Pitches and
// distances count elements of bfloat16.
//
// Numerics: float32 sums, one fixed order (rows, then pairs of pixels) for each result. Denormal
// numbers may count as zero.
namespace pycnn::cpu {

// to[e] = from[e], from[e + distance], for e < count.
struct DistantPairs {
  const BFloat16* from = nullptr;
  std::int64_t count = 0, distance = 0;
  BFloat16* to = nullptr;
};

// A row of a gradient as pairs of neighbouring pixels, [32 channels][pair][32][2]. An odd row ends
// with a pixel of zeros, as do the channels that fill up the last 32.
struct GradRowPairs {
  const BFloat16* from = nullptr;
  std::int64_t columns = 0, channels = 0;
  BFloat16* to = nullptr;
  std::int64_t block_pitch = 0;  // from 32 channels to the next
  float* bias = nullptr;         // optional: adds the pixels of each channel, 32 per block
};

// For elements e of a row of taps and 32 output channels c:
//
//   sums[e][c] (+)= sum over rows r, pairs p, i < 2 of
//                   input[r * input_row + 2 * (p * step + e) + i] *
//                   grad[r * grad_row + 2 * (p * 32 + c) + i]
struct RowPairSums {
  const BFloat16* input = nullptr;
  std::int64_t input_row = 0, step = 0;
  const BFloat16* grad = nullptr;
  std::int64_t grad_row = 0;
  std::int64_t rows = 0, pairs = 0, elements = 0;
  float* sums = nullptr;
  bool accumulate = false;
};

struct RowPairLoops {
  void (*pairs)(const DistantPairs&);
  void (*grad_row)(const GradRowPairs&);
  void (*sums)(const RowPairSums&);
};

namespace portable {
extern const RowPairLoops kRowPairLoops;
}
namespace avx512_bf16 {
extern const RowPairLoops kRowPairLoops;
}

}  // namespace pycnn::cpu
