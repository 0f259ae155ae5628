// Broadcasting, reductions and ops that move data.
#include <doctest/doctest.h>

#include "pycnn/error.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

namespace {
std::vector<TensorSpec> run(const Op& op, const std::vector<TensorSpec>& inputs) {
  return infer(op, inputs);
}
Shape shape_of(const Op& op, const std::vector<TensorSpec>& inputs) {
  return run(op, inputs).front().shape;
}
constexpr std::int64_t kHuge = std::int64_t{1} << 62;
}  // namespace

TEST_CASE("element-wise ops broadcast as NumPy") {
  CHECK(shape_of(ops::Add{}, {f32({2, 1, 3}), f32({4, 1})}) == Shape{2, 4, 3});
  CHECK(shape_of(ops::Multiply{}, {f32({}), f32({})}) == Shape{});
  CHECK(shape_of(ops::Subtract{}, {f32({0, 3}), f32({1})}) == Shape{0, 3});
  CHECK(shape_of(ops::Add{}, {f32({1}), f32({0})}) == Shape{0});
  check_error<ShapeError>(
      [] {
        run(ops::Add{}, {f32({2, 3}), f32({4, 3})});
      },
      {"(2, 3)", "(4, 3)", "axis -2 is 2 and 4"});
  check_error<ShapeError>([] { run(ops::Add{}, {f32({3}), f32({2, 4})}); }, {"axis -1 is 3 and 4"});
  check_error<DTypeError>([] { run(ops::Add{}, {f32({3}), f64({3})}); }, {"b is f64", "a is f32"});
  check_error<DTypeError>(
      [] {
        run(ops::Add{}, {i64({3}), i64({3})});
      },
      {"a is i64", "f32, f64, bf16 or f16"});
}

TEST_CASE("broadcast only grows") {
  CHECK(shape_of(ops::Broadcast{{4, 2, 3}}, {i64({2, 1})}) == Shape{4, 2, 3});
  check_error<ShapeError>([] { run(ops::Broadcast{{2, 1}}, {f32({2, 3})}); }, {"(2, 3)", "(2, 1)"});
  check_error<ShapeError>([] { run(ops::Broadcast{{3}}, {f32({1, 3})}); }, {"(1, 3)", "(3)"});
  check_error<ShapeError>([] { run(ops::Broadcast{{kHuge, kHuge}}, {f32({1})}); }, {"2^62"});
  check_error<ShapeError>([] { run(ops::Broadcast{{-1}}, {f32({1})}); }, {"-1"});
}

TEST_CASE("reduce removes or keeps its axes") {
  const TensorSpec x = f32({2, 3, 4});
  CHECK(shape_of(ops::Reduce{Reduction::kSum, {0, 2}, false}, {x}) == Shape{3});
  CHECK(shape_of(ops::Reduce{Reduction::kSum, {0, 2}, true}, {x}) == Shape{1, 3, 1});
  CHECK(shape_of(ops::Reduce{Reduction::kMean, {0, 1, 2}, false}, {x}) == Shape{});
  check_error<ShapeError>([&] { run(ops::Reduce{Reduction::kSum, {3}}, {x}); }, {"axis 3"});
  check_error<ShapeError>([&] { run(ops::Reduce{Reduction::kSum, {-1}}, {x}); }, {"axis -1"});
  check_error<ArgumentError>([&] { run(ops::Reduce{Reduction::kSum, {1, 1}}, {x}); }, {"(1, 1)"});
  check_error<ArgumentError>([&] { run(ops::Reduce{Reduction::kSum, {2, 0}}, {x}); }, {"(2, 0)"});
}

TEST_CASE("reshape fills in -1 and 0, for an empty batch too") {
  CHECK(shape_of(ops::Reshape{{0, -1}}, {f32({2, 3, 4})}) == Shape{2, 12});
  CHECK(shape_of(ops::Reshape{{0, -1}}, {f32({0, 5, 5, 16})}) == Shape{0, 400});
  CHECK(shape_of(ops::Reshape{{-1}}, {f32({0, 5})}) == Shape{0});
  CHECK(shape_of(ops::Reshape{{-1}}, {f32({})}) == Shape{1});
  CHECK(shape_of(ops::Reshape{{}}, {f32({1, 1})}) == Shape{});
  CHECK(shape_of(ops::Reshape{{0, 5, 5, 16}}, {u8({0, 400})}) == Shape{0, 5, 5, 16});
  CHECK(shape_of(ops::Reshape{{4, -1, 0}}, {f32({2, 2, 3})}) == Shape{4, 1, 3});
  check_error<ShapeError>(
      [] {
        run(ops::Reshape{{5, -1}}, {f32({2, 3})});
      },
      {"(2, 3)", "6 elements", "(5, -1)"});
  check_error<ShapeError>([] { run(ops::Reshape{{7}}, {f32({2, 3})}); }, {"6 elements", "(7)"});
  check_error<ShapeError>([] { run(ops::Reshape{{6, 0, 0}}, {f32({2, 3})}); }, {"keeps axis 2"});
  check_error<ArgumentError>([] { run(ops::Reshape{{-1, -1}}, {f32({2, 3})}); }, {"(-1, -1)"});
  check_error<ArgumentError>([] { run(ops::Reshape{{-2, 3}}, {f32({2, 3})}); }, {"(-2, 3)"});
  check_error<ShapeError>([] { run(ops::Reshape{{kHuge, kHuge}}, {f32({2})}); }, {"overflows"});
}

TEST_CASE("transpose takes each axis once") {
  CHECK(shape_of(ops::Transpose{{2, 0, 1}}, {f32({2, 3, 4})}) == Shape{4, 2, 3});
  CHECK(shape_of(ops::Transpose{{}}, {f32({})}) == Shape{});
  for (const std::vector<std::int64_t>& wrong :
       {std::vector<std::int64_t>{0, 1}, {0, 1, 1}, {0, 1, 3}, {0, 1, -1}, {0, 1, 2, 3}}) {
    check_error<ArgumentError>(
        [&] {
          run(ops::Transpose{wrong}, {f32({2, 3, 4})});
        },
        {"permutation is", to_string(wrong).c_str(), "from 0 to 2"});
  }
}

TEST_CASE("slice stays inside, pad does not take away") {
  const TensorSpec x = f32({2, 3});
  CHECK(shape_of(ops::Slice{{1, 3}, {-1, -1}}, {x}) == Shape{1, 0});
  CHECK(shape_of(ops::Slice{{2, 0}, {0, 3}}, {x}) == Shape{0, 3});
  for (const auto& [begin, size] : {std::pair<std::int64_t, std::int64_t>{0, 4},
                                    {3, 1},
                                    {4, -1},
                                    {-1, 1},
                                    {0, -2},
                                    {1, kHuge},
                                    {kHuge, -1}}) {
    check_error<ShapeError>(
        [&, b = begin, s = size] {
          run(ops::Slice{{0, b}, {2, s}}, {x});
        },
        {"axis 1", std::to_string(begin).c_str(), std::to_string(size).c_str()});
  }
  check_error<ShapeError>([&] { run(ops::Slice{{0}, {1}}, {x}); }, {"begin has 1", "2 axes"});
  CHECK(shape_of(ops::Pad{{0, 1}, {2, 0}, 1.0}, {x}) == Shape{4, 4});
  check_error<ArgumentError>([&] { run(ops::Pad{{0, -1}, {0, 0}}, {x}); }, {"axis 1", "-1"});
  check_error<ShapeError>([&] { run(ops::Pad{{kHuge, 0}, {kHuge, 0}}, {x}); }, {"overflows"});
  check_error<ArgumentError>([] { run(ops::Pad{{1}, {1}, 0.5}, {u8({2})}); }, {"0.5", "u8"});
}

TEST_CASE("concat joins one axis of equal tensors") {
  CHECK(shape_of(ops::Concat{-1}, {f32({2, 3}), f32({2, 0}), f32({2, 5})}) == Shape{2, 8});
  CHECK(shape_of(ops::Concat{0}, {i64({2, 3}), i64({1, 3})}) == Shape{3, 3});
  check_error<ShapeError>(
      [] {
        run(ops::Concat{-1}, {f32({2, 3}), f32({3, 3})});
      },
      {"input 1 is (3, 3)", "input 0 is (2, 3)"});
  check_error<ShapeError>([] { run(ops::Concat{0}, {f32({2, 3}), f32({2})}); }, {"input 1 is (2)"});
  check_error<ShapeError>([] { run(ops::Concat{2}, {f32({2, 3})}); }, {"axis 2"});
  check_error<ShapeError>([] { run(ops::Concat{-3}, {f32({2, 3})}); }, {"axis -3"});
  check_error<ShapeError>([] { run(ops::Concat{0}, {f32({})}); }, {"axis 0"});
  check_error<DTypeError>([] { run(ops::Concat{0}, {f32({2}), f64({2})}); }, {"input 1 is f64"});
}

TEST_CASE("take_windows names what does not fit") {
  const TensorSpec images = u8({5, 9, 8, 3}), places = i64({4, 8});
  CHECK(shape_of(ops::TakeWindows{{7, 6}}, {images, places}) == Shape{4, 7, 6, 3});
  CHECK(run(ops::TakeWindows{{7, 6}}, {images, places})[0].dtype == DType::kUInt8);
  check_error<ShapeError>(
      [&] {
        run(ops::TakeWindows{{7, 6}}, {images, i64({4, 6})});
      },
      {"places", "6 columns, expected 8"});
  check_error<DTypeError>(
      [&] {
        run(ops::TakeWindows{{7, 6}}, {images, i32({4, 8})});
      },
      {"places is i32"});
  check_error<ArgumentError>(
      [&] {
        run(ops::TakeWindows{{7, 6}, 256.0}, {images, places});
      },
      {"fill", "256"});
  check_error<ArgumentError>(
      [&] {
        run(ops::TakeWindows{{7, 6}, 0.0, {1, 2}}, {images, places});
      },
      {"box_fill has 2 values", "3 channels"});
}

TEST_CASE("take names the index out of range") {
  CHECK(shape_of(ops::Take{{1, -1, 0, 1}}, {f32({2, 3})}) == Shape{4, 3});
  CHECK(shape_of(ops::Take{{}}, {f32({0, 3})}) == Shape{0, 3});
  check_error<ShapeError>(
      [] {
        run(ops::Take{{0, 2}}, {f32({2, 3})});
      },
      {"index 2 at position 1", "2 rows"});
  check_error<ShapeError>([] { run(ops::Take{{-2}}, {f32({2, 3})}); }, {"index -2"});
  check_error<ShapeError>(
      [] {
        run(ops::TakeGrad{{0, 1}, 2}, {f32({3, 3})});
      },
      {"3 rows", "2 ind"});
  check_error<ArgumentError>([] { run(ops::TakeGrad{{}, -1}, {f32({0, 3})}); }, {"rows is -1"});
}
