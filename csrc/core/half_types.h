#pragma once
#include <cstdint>

namespace pycnn {

// The two 16-bit types as they lie in memory, each a type of its own, so that kernels for them
// cannot be confused; half.h converts single values.

// The upper half of a float.
struct BFloat16 {
  std::uint16_t bits;
};
// IEEE 754's binary16: 5 bits of exponent, 10 of mantissa.
struct Float16 {
  std::uint16_t bits;
};

}  // namespace pycnn
