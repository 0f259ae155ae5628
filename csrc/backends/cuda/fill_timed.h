#pragma once
#include "backends/cuda/numbers.h"
#include "backends/cuda/philox.h"

// Numbers for operands of kernels that are timed, and held against one another.
namespace pycnn::cuda {

// Half a word is 0.0078 to 0.03 in bfloat16 (and the upper one of a float32), 1 to 1.25 in float16,
// of either sign: what is added up over many rows has none, so that some rows' part shows.
struct FillTimed {
  static constexpr int kWidth = 8;
  std::uint16_t* output;
  std::uint64_t seed;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    const PhiloxWords words = philox(0, static_cast<std::uint64_t>(begin), seed);
    for (int i = 0; i < n; ++i) {
      const std::uint32_t bits = words.word[i / 2] >> (i % 2 * 16);
      output[begin + i] = static_cast<std::uint16_t>(0x3C00u | (bits & 0x80FFu));
    }
  }
};

// Of those numbers, for a call that has signs beside what they are of.
template <class T>
struct Signs {
  static constexpr int kWidth = kSigns;
  const T* input;
  std::uint8_t* signs;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth];
    load(input + begin, n, x);
    signs[begin / kSigns] = signs_of<T>(x);
  }
};

}  // namespace pycnn::cuda
