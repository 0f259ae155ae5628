#pragma once
#include <cstdint>

#include "backends/cpu/convert.h"

// Contract of dropout.isa.cpp.
namespace pycnn::cpu {

// One chunk of DropoutTrain: elements [first, first + n) of the tensor, `first` a multiple of
// kDropoutBlock. output[i] = (word(first + i) >> 8) >= threshold ? input[i] * scale : 0, where
// word(e) is word e % 4 of Philox4x32-10 at counter (e / 4, step). output may be input.
struct DropoutChunk {
  const float* input;
  float* output;
  std::int64_t first;
  std::int64_t n;
  std::uint64_t key;
  std::uint64_t step;
  std::int32_t threshold;  // smallest 24-bit number whose unit float is kept
  float scale;
};
constexpr std::int64_t kDropoutBlock = 64;

struct DropoutFunctions {
  void (*apply)(const DropoutChunk& chunk);
  const ConvertFunctions* convert;
};

namespace baseline {
extern const DropoutFunctions kDropout;
}
namespace avx2 {
extern const DropoutFunctions kDropout;
}
namespace avx512 {
extern const DropoutFunctions kDropout;
}

}  // namespace pycnn::cpu
