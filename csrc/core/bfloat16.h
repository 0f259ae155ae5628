#pragma once
#include <cstdint>

namespace pycnn {

// The upper half of a float, as it lies in memory. A type of its own, so that kernels for both
// cannot be confused; half.h converts single values.
struct BFloat16 {
  std::uint16_t bits;
};

}  // namespace pycnn
