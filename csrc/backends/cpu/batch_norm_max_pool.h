#pragma once
#include "backends/cpu/batch_norm.h"
#include "backends/cpu/pool.h"

// Inner loops of the gradient through a max pool and the batch norm before it, of bfloat16 on
// AVX-512 (batch_norm_max_pool.isa.cpp). What a channel has in common is sorted: of each 32
// channels those with even numbers come first, as they lie in the lower halves of their words.
// Pixels of `pitch` numbers, a multiple of 32, follow one another.
namespace pycnn::cpu {

constexpr std::int64_t sorted_channel(std::int64_t c) noexcept {
  return c / 32 * 32 + c % 2 * 16 + c % 32 / 2;
}

// Keys (MaxPoolTaps) of a row of pixels, normalised, activated and rounded to bfloat16.
struct NormedKeys {
  const BFloat16* input;
  std::int64_t pixels, channels, pitch;
  ColumnNorm norm;
  const Rectifier* rectifier;  // or null
  std::int16_t* keys;
  float* lost;  // NaN is added where the distance from the mean is no number or infinite
};

// Adds up what a row of windows gives its winners, and that times their distances from the mean.
// Windows without a tap give nothing.
struct WinnerSums {
  const std::int16_t* values;  // of the winners, bits of BFloat16
  const BFloat16* grad_output;
  std::int64_t channels, pitch;
  const PoolColumns* columns;
  const float* mean;
  const Gate* gate;  // or null
  float *sum, *product;
};

// A row of the gradient for the input: a * g + b * (input - mean) + c, of what the gate leaves of
// the sum g over the windows that hold a pixel. May be the same memory as the input.
struct NormedGradOfRow {
  MaxPoolGradOfRow pool;
  const BFloat16* input;
  const float *mean, *a, *b, *c;
  const Gate* gate;  // or null
};

namespace avx512 {
void normed_keys(const NormedKeys&) noexcept;
void winner_sums(const WinnerSums&) noexcept;
void normed_grad_of_row(const NormedGradOfRow&) noexcept;
}  // namespace avx512

}  // namespace pycnn::cpu
