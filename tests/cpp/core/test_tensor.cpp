#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "pycnn/error.h"
#include "pycnn/tensor.h"

using namespace pycnn;

TEST_CASE("element types have two names and a size") {
  const DType all[] = {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16,
                       DType::kUInt8,   DType::kInt32,   DType::kInt64};
  const std::size_t sizes[] = {4, 8, 2, 2, 1, 4, 8};
  for (int i = 0; i < 7; ++i) {
    CHECK(item_bytes(all[i]) == sizes[i]);
    CHECK(parse_dtype(short_name(all[i])) == all[i]);
    CHECK(parse_dtype(long_name(all[i])) == all[i]);
    CHECK(is_floating(all[i]) == (i < 4));
  }
  CHECK_THROWS_AS(parse_dtype("float8"), DTypeError);
  CHECK_THROWS_WITH(parse_dtype("float8"), doctest::Contains("float32"));
}

TEST_CASE("sizes are computed without wrapping") {
  constexpr std::int64_t kBig = std::int64_t{1} << 31;
  CHECK(element_count({}) == 1);
  CHECK(element_count({2, 3, 4}) == 24);
  CHECK(element_count({5, 0}) == 0);
  CHECK(element_count({kBig, kBig}) == kBig * kBig);
  CHECK_THROWS_AS(element_count({kBig, kBig, 2}), ShapeError);
  CHECK_THROWS_AS(element_count({kBig, kBig, 2, 0}), ShapeError);
  CHECK_THROWS_AS(element_count({0, -1}), ShapeError);
  CHECK_THROWS_AS(element_count({-1, -1}), ShapeError);
  CHECK_THROWS_AS(element_count(Shape(8, std::numeric_limits<std::int64_t>::max())), ShapeError);
  CHECK(byte_size({{3, 5}, DType::kFloat64}) == 120);
  CHECK_THROWS_AS(byte_size({{kBig, kBig}, DType::kFloat32}), ShapeError);
}

TEST_CASE("specs print as in graph text") {
  CHECK(to_string(Shape{}) == "()");
  CHECK(to_string(Shape{7}) == "(7)");
  CHECK(to_string(TensorSpec{{2, 28, 28, 1}, DType::kFloat32}) == "f32(2, 28, 28, 1)");
}

TEST_CASE("a tensor is zero-filled, aligned and never null") {
  for (const std::int64_t count : {0, 1, 3, 1000, 1 << 19, (1 << 19) + 1, (3 << 20) + 7}) {
    CAPTURE(count);
    Tensor tensor({{count}, DType::kFloat32});
    REQUIRE(tensor.raw() != nullptr);
    const auto address = reinterpret_cast<std::uintptr_t>(tensor.raw());
    CHECK(address % 64 == 0);
    CHECK(tensor.size() == count);
    CHECK(tensor.bytes() == static_cast<std::size_t>(count) * 4);
    bool zero = true;
    for (std::int64_t i = 0; i < count; ++i) zero = zero && tensor.data<std::uint32_t>()[i] == 0;
    CHECK(zero);
    if (tensor.bytes() > 0) std::memset(tensor.mutable_raw(), 0x5A, tensor.bytes());
  }
}

TEST_CASE("a default-constructed tensor is undefined and harmless") {
  Tensor tensor;
  CHECK_FALSE(tensor.defined());
  CHECK(tensor.raw() == nullptr);
  CHECK(tensor.size() == 0);
  CHECK(tensor.version() == 0);
  CHECK_FALSE(tensor.clone().defined());
}

TEST_CASE("copies share, clones do not") {
  Tensor tensor({{4}, DType::kFloat32});
  tensor.mutable_data<float>()[0] = 1.0f;
  Tensor shared = tensor;
  const Tensor cloned = tensor.clone();
  CHECK(shared.shares_storage_with(tensor));
  CHECK_FALSE(cloned.shares_storage_with(tensor));
  shared.mutable_data<float>()[0] = 2.0f;
  CHECK(tensor.data<float>()[0] == 2.0f);
  CHECK(cloned.data<float>()[0] == 1.0f);
}

TEST_CASE("the version grows with writes only") {
  Tensor tensor({{4}, DType::kFloat32});
  const std::uint64_t start = tensor.version();
  CHECK(tensor.data<float>()[3] == 0.0f);
  CHECK(tensor.version() == start);
  tensor.mutable_raw();
  CHECK(tensor.version() == start + 1);
  const Tensor shared = tensor;
  tensor.mark_written();
  CHECK(shared.version() == start + 2);

  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([tensor]() mutable {
      for (int i = 0; i < 1000; ++i) tensor.mark_written();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(tensor.version() == start + 4002);
}

TEST_CASE("a tensor that cannot be had says how much it wanted") {
  CHECK_THROWS_AS(Tensor({{std::int64_t{1} << 40, std::int64_t{1} << 40}, DType::kFloat32}),
                  ShapeError);
  constexpr std::int64_t kTooMuch = std::int64_t{1} << 57;
  try {
    const Tensor tensor({{kTooMuch}, DType::kFloat32});
    FAIL("2^59 bytes were granted");
  } catch (const MemoryLimitError& error) {
    CHECK(error.wanted_bytes() == std::size_t{1} << 59);
    CHECK(std::string(error.what()).find("576460752303423488 bytes") != std::string::npos);
    CHECK(error.available_bytes() > 0);
    CHECK(error.available_bytes() < error.wanted_bytes());
    CHECK(std::string(error.what())
              .find(std::to_string(error.available_bytes()) + " are available") !=
          std::string::npos);
    CHECK(std::string(error.what()).find("f32(144115188075855872)") != std::string::npos);
  }
}

TEST_CASE("errors carry their facts") {
  const FileError file("save 'x': no space", "x", 28);
  CHECK(file.code() == 28);
  CHECK(file.path() == "x");
  CHECK_THROWS_AS(throw LabelError("label 10"), Error);
}
