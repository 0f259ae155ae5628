#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <vector>

#include "core/half.h"
#include "pycnn/tensor.h"

// Operands of kernels that are timed: multiplying equal numbers takes a GPU less power, so that its
// clocks would be higher than they are in training.
namespace pycnn::testing {

enum class Operand : std::uint8_t {
  kImage,   // normal numbers
  kWeight,  // normal ones, of which a window's sum of products with images' is about as large
  kVector   // of channels, near 1: a mean, a variance or a factor
};

// Normal numbers, again and again: of an odd length, so that rows and pixels are not the same.
inline const std::vector<float>& normal_numbers() {
  static const std::vector<float> numbers = [] {
    std::mt19937 engine(5489);
    std::normal_distribution<float> normal;
    std::vector<float> drawn((std::size_t{1} << 20) + 7);
    for (float& number : drawn) number = normal(engine);
    return drawn;
  }();
  return numbers;
}

// `place` among the operands: each has others.
inline std::vector<std::byte> timed_operand(const TensorSpec& spec, Operand kind, int place) {
  const std::vector<float>& numbers = normal_numbers();
  const std::size_t items = numbers.size(), item = item_bytes(spec.dtype);
  float scale = 1.0f, offset = 0.0f;
  if (kind == Operand::kWeight && element_count(spec.shape) > 0)
    scale = 1.0f / std::sqrt(static_cast<float>(element_count(spec.shape) / spec.shape[0]));
  if (kind == Operand::kVector) {
    scale = 0.125f;
    offset = 1.0f;
  }
  const std::size_t bytes = byte_size(spec), period = items * item;
  std::vector<std::byte> result(bytes);
  std::size_t from = static_cast<std::size_t>(place) * 104729 % items;
  for (std::size_t at = 0; at < bytes && at < period; at += item) {
    const float value = offset + scale * numbers[from];
    from = from + 1 == items ? 0 : from + 1;
    switch (spec.dtype) {
      case DType::kFloat32:
        std::memcpy(result.data() + at, &value, item);
        break;
      case DType::kBFloat16: {
        const std::uint16_t bits = bfloat16_from_float(value);
        std::memcpy(result.data() + at, &bits, item);
        break;
      }
      case DType::kFloat16: {
        const std::uint16_t bits = float16_from_float(value);
        std::memcpy(result.data() + at, &bits, item);
        break;
      }
      default:
        throw std::invalid_argument("timed operands are of floating point");
    }
  }
  for (std::size_t at = period; at < bytes; at += period)
    std::memcpy(result.data() + at, result.data(), at + period < bytes ? period : bytes - at);
  return result;
}

}  // namespace pycnn::testing
