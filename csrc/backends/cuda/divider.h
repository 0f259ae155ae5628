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

// The same of any numbers: quick for those below 2^31.
struct WideDivider {
  std::int64_t divisor = 1;
  Divider quick;
  bool is_quick = true;

  WideDivider() = default;
  // 1 or more.
  explicit WideDivider(std::int64_t by)
      : divisor(by), quick(by < kQuick ? by : 1), is_quick(by < kQuick) {}

  PYCNN_BOTH std::int64_t split(std::int64_t& number) const {
    if (is_quick && number < kQuick) {
      auto rest = static_cast<std::uint32_t>(number);
      const std::uint32_t result = quick.split(rest);
      number = rest;
      return result;
    }
    const std::int64_t result = number / divisor;
    number -= result * divisor;
    return result;
  }

 private:
  static constexpr std::int64_t kQuick = std::int64_t{1} << 31;
};

}  // namespace pycnn::cuda
