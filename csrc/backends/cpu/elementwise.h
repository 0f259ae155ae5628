#pragma once
#include <cstdint>

#include "backends/cpu/convert.h"

// Contract of elementwise.isa.cpp: unaligned arrays of n floats; the result may lie on an input.
namespace pycnn::cpu {

struct BinaryFunctions {
  void (*arrays)(const float* a, const float* b, float* output, std::int64_t n);
  void (*array_scalar)(const float* a, float b, float* output, std::int64_t n);
  void (*scalar_array)(float a, const float* b, float* output, std::int64_t n);
};

struct ElementwiseFunctions {
  BinaryFunctions add, subtract, multiply;
  BinaryFunctions binary[8];  // by BinaryKind
  // add, subtract and multiply: each result rounded once.
  void (*bfloat16_arrays[3])(const BFloat16* a, const BFloat16* b, BFloat16* output,
                             std::int64_t n);
  void (*affine)(const float* input, float scale, float offset, float* output, std::int64_t n);
  const ConvertFunctions* convert;
};

namespace baseline {
extern const ElementwiseFunctions kElementwise;
}
namespace avx2 {
extern const ElementwiseFunctions kElementwise;
}
namespace avx512 {
extern const ElementwiseFunctions kElementwise;
}

}  // namespace pycnn::cpu
