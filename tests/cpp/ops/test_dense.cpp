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

TEST_CASE("dense replaces the last axis") {
  CHECK(run(ops::Dense{}, {f32({0, 3}), f32({7, 3}), f32({7})}) == std::vector{f32({0, 7})});
  CHECK(run(ops::Dense{}, {f64({2, 5, 3}), f64({1, 3})}) == std::vector{f64({2, 5, 1})});
  CHECK(run(ops::DenseGradInput{}, {f32({2, 5, 7}), f32({7, 3})}) == std::vector{f32({2, 5, 3})});
  CHECK(run(ops::DenseGradWeight{true}, {f32({2, 5, 3}), f32({2, 5, 7})}) ==
        std::vector{f32({7, 3}), f32({7})});
}

TEST_CASE("dense names the features that disagree and guesses why") {
  check_error<ShapeError>(
      [] {
        run(ops::Dense{}, {f32({2, 5, 5, 16}), f32({120, 400})});
      },
      {"16 features", "expects 400", "flatten"});
  check_error<ShapeError>(
      [] {
        run(ops::Dense{}, {f32({2, 400}), f32({400, 120})});
      },
      {"400 features", "expects 120", "weight.T"});
  check_error<ShapeError>(
      [] {
        run(ops::Dense{}, {f32({400}), f32({120, 400})});
      },
      {"input (400)", "at least 2"});
  check_error<ShapeError>(
      [] {
        run(ops::Dense{}, {f32({2, 4}), f32({3, 4}), f32({4})});
      },
      {"bias is (4)", "(3)"});
  check_error<ShapeError>([] { run(ops::Dense{}, {f32({2, 0}), f32({3, 0})}); }, {"no feature"});
  check_error<ShapeError>(
      [] {
        run(ops::DenseGradWeight{}, {f32({2, 4}), f32({3, 4})});
      },
      {"grad_output is (3, 4)", "(2, 4)"});
  check_error<ShapeError>(
      [] {
        run(ops::DenseGradInput{}, {f32({2, 4}), f32({3, 4})});
      },
      {"4 features", "3 rows"});
}
