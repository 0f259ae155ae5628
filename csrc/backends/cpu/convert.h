#pragma once
#include <cstdint>

#include "core/half_types.h"

// Contract of convert.isa.cpp: unaligned arrays of n elements that do not overlap, but that `round`
// may work in place.
namespace pycnn::cpu {

struct ConvertFunctions {
  void (*widen)(const BFloat16* x, float* y, std::int64_t n);
  void (*narrow)(const float* x, BFloat16* y, std::int64_t n);
  // The same where nothing is to be rounded: cuts off what lies below a bfloat16.
  void (*cut)(const float* x, BFloat16* y, std::int64_t n);
  // To the nearest bfloat16, as a float.
  void (*round)(const float* x, float* y, std::int64_t n);
};

namespace baseline {
extern const ConvertFunctions kConvert;
}
namespace avx2 {
extern const ConvertFunctions kConvert;
}
namespace avx512 {
extern const ConvertFunctions kConvert;
}

}  // namespace pycnn::cpu
