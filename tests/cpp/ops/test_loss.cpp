#include <doctest/doctest.h>

#include "pycnn/error.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

namespace {
std::vector<TensorSpec> run(const Op& op, const std::vector<TensorSpec>& inputs) {
  return infer(op, inputs);
}
}  // namespace

TEST_CASE("losses are scalars of the scores' type") {
  CHECK(run(ops::SoftmaxCrossEntropy{}, {f32({5, 3}), i64({5})}) == std::vector{f32({})});
  CHECK(run(ops::SoftmaxCrossEntropy{}, {f64({5, 3}), i32({5})}) == std::vector{f64({})});
  CHECK(run(ops::SoftmaxCrossEntropy{}, {f32({5, 3}), f32({5, 3})}) == std::vector{f32({})});
  CHECK(run(ops::MeanSquaredError{}, {f32({5}), f32({5})}) == std::vector{f32({})});
  CHECK(run(ops::TopKCorrect{3}, {f64({5, 3}), i64({5})}) == std::vector{f64({})});
  CHECK(run(ops::TopKCorrect{3}, {f64({0, 3}), i64({0})}) == std::vector{f64({})});
}

TEST_CASE("labels are integers, one per sample") {
  const ops::SoftmaxCrossEntropy op;
  check_error<DTypeError>([&] { run(op, {f32({5, 3}), u8({5})}); }, {"u8", "i64 or i32"});
  check_error<DTypeError>([&] { run(op, {f32({5, 3}), f64({5, 3})}); }, {"f64", "f32"});
  check_error<ShapeError>([&] { run(op, {f32({5, 3}), i64({4})}); }, {"(4)", "(5)"});
  check_error<ShapeError>([&] { run(op, {f32({5, 3}), i64({5, 3})}); }, {"(5, 3)", "one-hot"});
  check_error<ShapeError>([&] { run(op, {f32({5, 3}), f32({5})}); }, {"(5)", "(5, 3)"});
  check_error<ShapeError>([&] { run(op, {f32({5}), i64({5})}); }, {"logits (5)", "(N, C)"});
  check_error<DTypeError>([] { run(ops::TopKCorrect{}, {f32({5, 3}), f32({5})}); }, {"f32", "i64"});
}

TEST_CASE("a mean over nothing is refused") {
  check_error<ShapeError>(
      [] {
        run(ops::SoftmaxCrossEntropy{}, {f32({0, 3}), i64({0})});
      },
      {"(0, 3)", "at least one sample"});
  check_error<ShapeError>(
      [] {
        run(ops::MeanSquaredError{}, {f32({0, 3}), f32({0, 3})});
      },
      {"(0, 3)", "at least one"});
  check_error<ShapeError>(
      [] {
        run(ops::Reduce{Reduction::kMean, {0}}, {f32({0, 3})});
      },
      {"(0, 3)", "no elements"});
  CHECK(run(ops::Reduce{Reduction::kSum, {0}}, {f32({0, 3})}) == std::vector{f32({3})});
  CHECK(run(ops::Reduce{Reduction::kMean, {1}}, {f32({0, 3})}) == std::vector{f32({0})});
}
