#pragma once
#include <bit>
#include <cstdint>

#include "backends/cuda/block.h"

// Quotients of numbers below 2^31 by a divisor that the host knows (Granlund and Montgomery,
// "Division by invariant integers using multiplication", figure 4.1): GPUs take some twenty
// instructions to divide.
namespace pycnn::cuda {

struct Divider {
  std::uint32_t divisor = 1, factor = 1, shift = 0;

  Divider() = default;
  // 1 or more.
  explicit Divider(std::int64_t by)
      : divisor(static_cast<std::uint32_t>(by)),
        shift(static_cast<std::uint32_t>(std::bit_width(divisor - 1))) {
    const std::uint64_t rest = (std::uint64_t{1} << shift) - divisor;
    factor = static_cast<std::uint32_t>((rest << 32) / divisor + 1);
  }

  PYCNN_BOTH std::uint32_t quotient(std::uint32_t number) const {
#if defined(__CUDA_ARCH__)
    const std::uint32_t high = __umulhi(number, factor);
#else
    const auto high = static_cast<std::uint32_t>((std::uint64_t{number} * factor) >> 32);
#endif
    return (high + number) >> shift;
  }
  // Makes the number a remainder and gives the quotient.
  PYCNN_BOTH std::uint32_t split(std::uint32_t& number) const {
    const std::uint32_t result = quotient(number);
    number -= result * divisor;
    return result;
  }
};

}  // namespace pycnn::cuda
