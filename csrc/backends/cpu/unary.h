#pragma once
#include <cstdint>

#include "backends/cpu/convert.h"
#include "backends/unary_form.h"

// Contract of unary.isa.cpp: unaligned arrays of n floats; results may lie on either input. kPower
// has no vector form.
namespace pycnn::cpu {

struct UnaryFunctions {
  void (*value)(UnaryForm form, float a, float b, const float* input, float* output,
                std::int64_t n);
  // grad_input = grad_output * derivative, 0 where that is 0.
  void (*gradient)(UnaryForm form, float a, float b, const float* input, const float* grad_output,
                   float* grad_input, std::int64_t n);
  const ConvertFunctions* convert;
};

namespace baseline {
extern const UnaryFunctions kUnary;
}
namespace avx2 {
extern const UnaryFunctions kUnary;
}
namespace avx512 {
extern const UnaryFunctions kUnary;
}

}  // namespace pycnn::cpu
