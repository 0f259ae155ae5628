#pragma once
#include <cstdint>

#include "backends/cpu/convert.h"

// Contract of unary.isa.cpp: unaligned arrays of n floats; results may lie on either input.
namespace pycnn::cpu {

// UnaryKind as it is in pycnn/ops.h, whose standard containers have no place in a .isa.cpp. kPower
// has no vector form.
enum class UnaryForm : std::uint8_t {
  kAbs,
  kCelu,
  kClip,
  kElu,
  kErf,
  kExp,
  kGelu,
  kGeluTanh,
  kHardSigmoid,
  kHardSwish,
  kLog,
  kMish,
  kPower,
  kReciprocal,
  kReciprocalSqrt,
  kSelu,
  kSilu,
  kSoftplus,
  kSoftsign,
  kSqrt,
  kThreshold,
};

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
