#pragma once
#include <cstdint>

namespace pycnn {

// UnaryKind as it is in pycnn/ops.h, which neither a .isa.cpp nor a .cu reads: the one for its
// standard containers, the other for the seconds that takes.
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

// Of the formulas that devices write for vectors and for numbers.
namespace unary_constants {
constexpr float kSeluScale = 1.05070098735548049342f, kSeluAlpha = 1.67326324235437728482f;
constexpr float kSqrtHalf = 0.70710678118654752440f;
constexpr float kGeluFactor = 0.79788456080286535588f, kGeluCubic = 0.044715f;
}  // namespace unary_constants

}  // namespace pycnn
