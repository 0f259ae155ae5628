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

TEST_CASE("batch norm keeps the shape; training adds statistics") {
  const TensorSpec c = f32({5});
  for (const Shape& shape : {Shape{4, 5}, Shape{2, 3, 3, 5}, Shape{1, 2, 5}}) {
    CHECK(run(ops::BatchNorm{}, {f32(shape), c, c, c, c}) == std::vector{f32(shape)});
    CHECK(run(ops::BatchNormTrain{}, {f32(shape), c, c, c, c}) ==
          std::vector{f32(shape), c, c, c, c});
    CHECK(run(ops::BatchNormTrainGrad{}, {f32(shape), c, c, c, f32(shape)}) ==
          std::vector{f32(shape), c, c});
  }
  CHECK(run(ops::FoldBatchNorm{}, {f32({5, 3, 3, 2}), c, c, c, c}) ==
        std::vector{f32({5, 3, 3, 2}), c});
}

TEST_CASE("training batch norm needs two values per channel") {
  const TensorSpec c = f32({5});
  check_error<ArgumentError>(
      [&] {
        run(ops::BatchNormTrain{}, {f32({1, 5}), c, c, c, c});
      },
      {"at least 2 values per channel", "(1, 5)", "has 1", "larger batch"});
  check_error<ArgumentError>(
      [&] {
        run(ops::BatchNormTrain{}, {f32({1, 1, 1, 5}), c, c, c, c});
      },
      {"has 1"});
  check_error<ArgumentError>(
      [&] {
        run(ops::BatchNormTrain{}, {f32({0, 2, 2, 5}), c, c, c, c});
      },
      {"has 0"});
  CHECK_NOTHROW(run(ops::BatchNormInference{}, {f32({0, 2, 2, 5}), c, c, c, c}));
}

TEST_CASE("batch norm names channels that disagree") {
  const TensorSpec c = f32({5});
  check_error<ShapeError>(
      [&] {
        run(ops::BatchNorm{}, {f32({4, 5, 7, 7}), c, c, c, c});
      },
      {"7 channels", "scale is (5)", "x.transpose(0, 2, 3, 1)"});
  check_error<ShapeError>(
      [&] {
        run(ops::BatchNorm{}, {f32({4, 5}), c, c, f32({6}), c});
      },
      {"5 channels", "running_mean is (6)"});
  check_error<DTypeError>(
      [&] {
        run(ops::BatchNorm{}, {f32({4, 5}), c, c, c, f64({5})});
      },
      {"running_var is f64", "input is f32"});
  check_error<ShapeError>(
      [&] {
        run(ops::FoldBatchNorm{}, {f32({5, 3}), c, c, c, f32({4})});
      },
      {"running_var is (4)", "(5)"});
}

TEST_CASE("batch norms take what is known of their input, of the right shape") {
  const TensorSpec x = f32({4, 3, 3, 5}), c = f32({5});
  const auto statistics = [&](const TensorSpec& moments) {
    return run(ops::BatchNormStatistics{}, {x, c, c, c, c, moments});
  };
  CHECK(statistics(f32({3, 5})) == run(ops::BatchNormStatistics{}, {x, c, c, c, c}));
  check_error<ShapeError>([&] { statistics(f32({2, 5})); }, {"moments is (2, 5)", "(3, 5)"});
  check_error<DTypeError>([&] { statistics(f64({3, 5})); }, {"moments is f64"});
  const auto gradient = [&](const TensorSpec& sums) {
    return run(ops::BatchNormApplyGrad{}, {x, c, c, c, c, c, x, sums});
  };
  CHECK(gradient(f32({2, 5})) == std::vector{x, c, c});
  check_error<ShapeError>([&] { gradient(f32({2, 4})); }, {"sums is (2, 4)", "(2, 5)"});
  CHECK(run(ops::BatchNormTrainGrad{}, {x, c, c, c, x, f32({2, 5})}) == std::vector{x, c, c});
  ops::BatchNormApply apply;
  apply.epilogue.residual = true;
  CHECK(run(apply, {x, c, c, c, x, c, c, c}) == std::vector{x});
  check_error<ShapeError>(
      [&] {
        run(apply, {x, c, c, c, x, c, f32({4}), c});
      },
      {"residual_factor is (4)", "(5)"});
  check_error<ArgumentError>([&] { run(apply, {x, c, c, c, x, c, c}); }, {"7", "residual_offset"});
  apply.epilogue.residual = false;
  check_error<ArgumentError>([&] { run(apply, {x, c, c, c, x, c, c, c}); }, {"8"});
  apply.epilogue.moments = true;
  check_error<ArgumentError>([&] { run(apply, {x, c, c, c}); }, {"only a convolution"});
}

TEST_CASE("a batch norm with a relu gives signs of whole bytes of channels") {
  ops::BatchNormApply apply;
  apply.epilogue.activation = ActivationKind::kRelu;
  apply.epilogue.signs = true;
  const TensorSpec x = f32({2, 3, 3, 24}), c = f32({24}), five = f32({5});
  CHECK(run(apply, {x, c, c, c}) == std::vector{x, TensorSpec{{2, 3, 3, 3}, DType::kUInt8}});
  check_error<ShapeError>(
      [&] {
        run(apply, {f32({2, 5}), five, five, five});
      },
      {"8 does not divide the 5 channels"});
  apply.epilogue.activation = ActivationKind::kRelu6;
  check_error<ArgumentError>([&] { run(apply, {x, c, c, c}); }, {"signs", "relu6"});
}
