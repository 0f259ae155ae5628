// Operands of pycnn_cuda_kernel_times (support/timed_operands.h).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "support/timed_operands.h"

namespace pycnn::testing {
namespace {

std::vector<double> numbers_of(const std::vector<std::byte>& bytes, DType dtype) {
  std::vector<double> numbers;
  for (std::size_t at = 0; at < bytes.size(); at += item_bytes(dtype)) {
    std::uint16_t half = 0;
    float value = 0.0f;
    if (dtype == DType::kFloat32) {
      std::memcpy(&value, bytes.data() + at, sizeof value);
    } else {
      std::memcpy(&half, bytes.data() + at, sizeof half);
      value = dtype == DType::kBFloat16 ? float_from_bfloat16(half) : float_from_float16(half);
    }
    numbers.push_back(static_cast<double>(value));
  }
  return numbers;
}

struct Spread {
  double mean = 0.0, deviation = 0.0;
  explicit Spread(const std::vector<double>& numbers) {
    for (const double x : numbers) mean += x / static_cast<double>(numbers.size());
    for (const double x : numbers)
      deviation += (x - mean) * (x - mean) / static_cast<double>(numbers.size());
    deviation = std::sqrt(deviation);
  }
};

TEST_CASE("timed operands: images are normal numbers of their type, and no two are the same") {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    const TensorSpec spec{{4, 16, 16, 64}, dtype};
    const auto bytes = timed_operand(spec, Operand::kImage, 0);
    CHECK(bytes.size() == byte_size(spec));
    const Spread spread(numbers_of(bytes, dtype));
    CHECK(std::abs(spread.mean) < 0.02);
    CHECK(std::abs(spread.deviation - 1.0) < 0.02);
    CHECK(timed_operand(spec, Operand::kImage, 1) != bytes);
    CHECK(timed_operand(spec, Operand::kImage, 0) == bytes);  // in each run
  }
}

TEST_CASE("timed operands: what is longer than the numbers goes on with other rows") {
  const std::size_t period = normal_numbers().size();
  constexpr std::size_t kRow = 1024;
  const TensorSpec spec{{2100, kRow}, DType::kBFloat16};
  const auto numbers = numbers_of(timed_operand(spec, Operand::kImage, 3), spec.dtype);
  REQUIRE(numbers.size() > 2 * period);
  CHECK(std::equal(numbers.begin(), numbers.end() - static_cast<std::ptrdiff_t>(period),
                   numbers.begin() + static_cast<std::ptrdiff_t>(period)));
  const auto row = [&](std::size_t i) {
    return std::vector<double>(numbers.begin() + static_cast<std::ptrdiff_t>(i * kRow),
                               numbers.begin() + static_cast<std::ptrdiff_t>((i + 1) * kRow));
  };
  for (std::size_t i = 1; i < 2100; ++i) {
    const bool same = row(i) == row(0);
    CHECK_FALSE(same);
  }
}

TEST_CASE("timed operands: sums of weights' products are about as large as images") {
  const TensorSpec spec{{64, 3, 3, 256}, DType::kFloat32};
  const Spread spread(numbers_of(timed_operand(spec, Operand::kWeight, 1), spec.dtype));
  CHECK(std::abs(spread.deviation * std::sqrt(9.0 * 256.0) - 1.0) < 0.02);
  CHECK(timed_operand({{0, 4}, DType::kFloat32}, Operand::kWeight, 1).empty());
}

TEST_CASE("timed operands: vectors of channels may be variances") {
  const TensorSpec spec{{100000}, DType::kFloat32};
  const auto numbers = numbers_of(timed_operand(spec, Operand::kVector, 2), spec.dtype);
  CHECK(*std::min_element(numbers.begin(), numbers.end()) > 0.25);
  CHECK(std::abs(Spread(numbers).mean - 1.0) < 0.01);
  CHECK(Spread(numbers).deviation > 0.1);
  CHECK_THROWS_AS(timed_operand({{3}, DType::kInt64}, Operand::kVector, 0), std::invalid_argument);
}

}  // namespace
}  // namespace pycnn::testing
