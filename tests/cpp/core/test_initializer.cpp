#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/half.h"
#include "core/rng.h"
#include "pycnn/error.h"
#include "pycnn/tensor.h"

using namespace pycnn;
using Kind = Initializer::Kind;

namespace {

struct Moments {
  double mean = 0, deviation = 0, low = 0, high = 0;
};

Moments moments(const Tensor& tensor) {
  const auto* values = tensor.data<double>();
  const auto n = static_cast<double>(tensor.size());
  Moments m;
  m.low = m.high = values[0];
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    m.mean += values[i] / n;
    m.low = std::min(m.low, values[i]);
    m.high = std::max(m.high, values[i]);
  }
  for (std::int64_t i = 0; i < tensor.size(); ++i)
    m.deviation += (values[i] - m.mean) * (values[i] - m.mean) / n;
  m.deviation = std::sqrt(m.deviation);
  return m;
}

Tensor filled(std::int64_t count, Initializer init, std::uint64_t seed, std::uint64_t stream,
              DType dtype = DType::kFloat64) {
  Tensor tensor({{count}, dtype});
  fill(tensor, init, seed, stream);
  return tensor;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.spec() == b.spec() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace

TEST_CASE("Philox4x32-10 gives the published values") {
  // Random123, kat_vectors.
  const auto zero = Philox(0)(0, 0);
  CHECK(zero[0] == 0x6627e8d5u);
  CHECK(zero[1] == 0xe169c58du);
  CHECK(zero[2] == 0xbc57ac4cu);
  CHECK(zero[3] == 0x9b00dbd8u);
  const auto ones = Philox(~std::uint64_t{0})(~std::uint64_t{0}, ~std::uint64_t{0});
  CHECK(ones[0] == 0x408f276du);
  CHECK(ones[1] == 0x41c83b0eu);
  CHECK(ones[2] == 0xa20bc7c6u);
  CHECK(ones[3] == 0x6d5451fdu);
  const auto pi = Philox(0x299f31d0a4093822u)(0x85a308d3243f6a88u, 0x0370734413198a2eu);
  CHECK(pi[0] == 0xd16cfe09u);
  CHECK(pi[1] == 0x94fdccebu);
  CHECK(pi[2] == 0x5001e420u);
  CHECK(pi[3] == 0x24126ea1u);
}

TEST_CASE("fill follows its distribution") {
  constexpr std::int64_t kCount = 400001;
  const double tolerance = 5.0 / std::sqrt(static_cast<double>(kCount));

  const Moments uniform = moments(filled(kCount, {Kind::kUniform, -1.0, 3.0}, 7, 1));
  CHECK(std::abs(uniform.mean - 1.0) < 4 / std::sqrt(12.0) * tolerance);
  CHECK(std::abs(uniform.deviation - 4 / std::sqrt(12.0)) < 2 * tolerance);
  CHECK(uniform.low >= -1.0);
  CHECK(uniform.high <= 3.0);
  CHECK(uniform.high - uniform.low > 3.999);

  const Moments normal = moments(filled(kCount, {Kind::kNormal, 2.0, 0.5}, 7, 1));
  CHECK(std::abs(normal.mean - 2.0) < 0.5 * tolerance);
  CHECK(std::abs(normal.deviation - 0.5) < 0.5 * tolerance);
  CHECK(normal.high > 2.0 + 4 * 0.5);
  CHECK(normal.low < 2.0 - 4 * 0.5);

  // A normal cut at two deviations has deviation 0.87962566.
  const Moments cut = moments(filled(kCount, {Kind::kTruncatedNormal, 0.0, 1.0}, 7, 1));
  CHECK(std::abs(cut.mean) < tolerance);
  CHECK(std::abs(cut.deviation - 0.87962566) < tolerance);
  CHECK(cut.low >= -2.0);
  CHECK(cut.high <= 2.0);
  CHECK(cut.high > 1.99);

  const Moments constant = moments(filled(9, {Kind::kConstant, 0.25, 0.0}, 7, 1));
  CHECK(constant.low == 0.25);
  CHECK(constant.high == 0.25);
}

TEST_CASE("neighbours are not correlated") {
  const Tensor tensor = filled(200000, {Kind::kNormal, 0.0, 1.0}, 3, 9);
  const auto* values = tensor.data<double>();
  for (const int lag : {1, 2, 3, 4, 7}) {
    double sum = 0;
    for (std::int64_t i = 0; i + lag < tensor.size(); ++i) sum += values[i] * values[i + lag];
    CHECK(std::abs(sum / static_cast<double>(tensor.size())) < 5.0 / std::sqrt(200000.0));
  }
}

TEST_CASE("values depend on seed, stream and element alone") {
  for (const Kind kind : {Kind::kUniform, Kind::kNormal, Kind::kTruncatedNormal}) {
    const Initializer init{kind, 0.0, 1.0};
    const Tensor whole = filled(100003, init, 11, 22);
    CHECK(same(whole, filled(100003, init, 11, 22)));
    const Tensor part = filled(70001, init, 11, 22);
    CHECK(std::memcmp(whole.raw(), part.raw(), part.bytes()) == 0);
    CHECK_FALSE(same(whole, filled(100003, init, 12, 22)));
    CHECK_FALSE(same(whole, filled(100003, init, 11, 23)));
  }
}

TEST_CASE("narrow types hold the rounded value") {
  const Initializer init{Kind::kNormal, 0.0, 1.0};
  const Tensor wide = filled(1000, init, 1, 2);
  const Tensor f32 = filled(1000, init, 1, 2, DType::kFloat32);
  const Tensor bf16 = filled(1000, init, 1, 2, DType::kBFloat16);
  const Tensor f16 = filled(1000, init, 1, 2, DType::kFloat16);
  bool good = true;
  for (int i = 0; i < 1000; ++i) {
    const auto value = static_cast<float>(wide.data<double>()[i]);
    good = good && f32.data<float>()[i] == value &&
           bf16.data<std::uint16_t>()[i] == bfloat16_from_float(value) &&
           f16.data<std::uint16_t>()[i] == float16_from_float(value);
  }
  CHECK(good);
}

TEST_CASE("16-bit types convert there and back") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float f16 = float_from_float16(half);
    const float bf16 = float_from_bfloat16(half);
    if (std::isnan(f16) ? !std::isnan(float_from_float16(float16_from_float(f16)))
                        : float16_from_float(f16) != half) {
      ++wrong;
    }
    if (std::isnan(bf16) ? !std::isnan(float_from_bfloat16(bfloat16_from_float(bf16)))
                         : bfloat16_from_float(bf16) != half) {
      ++wrong;
    }
  }
  CHECK(wrong == 0);
  CHECK(float16_from_float(65504.0f) == 0x7BFF);
  CHECK(float16_from_float(65519.0f) == 0x7BFF);
  CHECK(float16_from_float(65520.0f) == 0x7C00);
  CHECK(float16_from_float(1.0f + 0x1p-11f) == 0x3C00);  // a tie goes to even
  CHECK(float16_from_float(1.0f + 0x3p-11f) == 0x3C02);  // here upwards
  CHECK(float16_from_float(0x1p-25f) == 0x0000);         // half of the smallest one: even
  CHECK(float16_from_float(std::nextafter(0x1p-25f, 1.0f)) == 0x0001);
  CHECK(bfloat16_from_float(1.0f + 0x1p-8f) == 0x3F80);
  CHECK(bfloat16_from_float(1.0f + 0x3p-8f) == 0x3F82);
  CHECK(bfloat16_from_float(3.4e38f) == 0x7F80);
}

TEST_CASE("fill refuses what it cannot do") {
  Tensor integers({{3}, DType::kInt32});
  Tensor none;
  Tensor good({{3}, DType::kFloat32});
  CHECK_THROWS_AS(fill(integers, {}, 0, 0), DTypeError);
  CHECK_THROWS_AS(fill(none, {}, 0, 0), ArgumentError);
  CHECK_THROWS_AS(fill(good, {Kind::kUniform, 1.0, 0.0}, 0, 0), ArgumentError);
  CHECK_THROWS_AS(fill(good, {Kind::kNormal, 0.0, -1.0}, 0, 0), ArgumentError);
  CHECK_THROWS_AS(fill(good, {Kind::kNormal, NAN, 1.0}, 0, 0), ArgumentError);
}

TEST_CASE("streams are FNV-1a of the name") {
  CHECK(stream_of("") == 0xcbf29ce484222325u);
  CHECK(stream_of("a") == 0xaf63dc4c8601ec8cu);
  CHECK(stream_of("foobar") == 0x85944171f73967e8u);
}
