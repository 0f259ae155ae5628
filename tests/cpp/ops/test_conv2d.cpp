#include <doctest/doctest.h>

#include "pycnn/error.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

namespace {

std::vector<TensorSpec> run(const Op& op, const std::vector<TensorSpec>& inputs) {
  return infer(op, inputs);
}

// Windows that fit, counted one by one.
std::int64_t counted(std::int64_t size, std::int64_t before, std::int64_t after,
                     std::int64_t kernel, std::int64_t dilation, std::int64_t stride) {
  std::int64_t count = 0;
  for (std::int64_t start = -before;; start += stride) {
    const std::int64_t last_cell = start + (kernel - 1) * dilation;
    if (last_cell > size - 1 + after) return count;
    ++count;
  }
}

}  // namespace

TEST_CASE("conv2d gives as many outputs as windows fit, on odd geometry") {
  int fitting = 0, refused = 0;
  for (const std::int64_t size : {1, 2, 3, 5, 8, 17}) {
    for (const std::int64_t kernel : {1, 2, 3, 7}) {
      for (const std::int64_t stride : {1, 2, 3, 50}) {
        for (const std::int64_t dilation : {1, 2, 9}) {
          for (const std::int64_t before : {0, 1, 4}) {
            for (const std::int64_t after : {0, 3}) {
              // The other axis is one pixel under one tap.
              for (const bool vertical : {true, false}) {
                ops::Conv2d op;
                op.stride = vertical ? Pair{stride, 1} : Pair{1, stride};
                op.dilation = vertical ? Pair{dilation, 1} : Pair{1, dilation};
                op.padding = vertical ? Padding{before, after, 0, 0} : Padding{0, 0, before, after};
                const TensorSpec x = vertical ? f32({2, size, 1, 3}) : f32({2, 1, size, 3});
                const TensorSpec w = vertical ? f32({5, kernel, 1, 3}) : f32({5, 1, kernel, 3});
                const std::int64_t n = counted(size, before, after, kernel, dilation, stride);
                if (n == 0) {
                  CHECK_THROWS_AS(run(op, {x, w}), ShapeError);
                  ++refused;
                  continue;
                }
                ++fitting;
                const TensorSpec y = vertical ? f32({2, n, 1, 5}) : f32({2, 1, n, 5});
                REQUIRE(run(op, {x, w}) == std::vector{y});
                const Pair in = {x.shape[1], x.shape[2]}, k = {w.shape[1], w.shape[2]};
                const ops::Conv2dGradInput gx{op.stride, op.padding, op.dilation, 1, in};
                CHECK(run(gx, {y, w}) == std::vector{x});
                const ops::Conv2dGradWeight gw{op.stride, op.padding, op.dilation, 1, k, true};
                CHECK(run(gw, {x, y}) == std::vector{w, f32({5})});
                TensorSpec longer = y;
                ++longer.shape[vertical ? 1 : 2];
                CHECK_THROWS_AS(run(gx, {longer, w}), ShapeError);
                CHECK_THROWS_AS(run(gw, {x, longer}), ShapeError);
              }
            }
          }
        }
      }
    }
  }
  CHECK(fitting > 500);
  CHECK(refused > 100);
}

TEST_CASE("conv2d that leaves no output names input, padding, kernel and stride") {
  ops::Conv2d op;
  op.stride = {3, 3};
  op.padding = {1, 0, 0, 0};
  check_error<ShapeError>(
      [&] {
        run(op, {f32({1, 3, 8, 1}), f32({1, 5, 5, 1})});
      },
      {"height", "N = 3", "P = 1 + 0", "F = 5", "stride = 3"});
  op.dilation = {1, 4};
  check_error<ShapeError>(
      [&] {
        run(op, {f32({1, 9, 8, 1}), f32({1, 3, 3, 1})});
      },
      {"width", "N = 8", "P = 0 + 0", "F = 3", "9 with dilation 4"});
}

TEST_CASE("conv2d sizes do not overflow") {
  const std::int64_t huge = (std::int64_t{1} << 31) - 1;
  ops::Conv2d op;
  op.dilation = {huge, huge};
  CHECK_THROWS_AS(run(op, {f32({1, 4, 4, 1}), f32({1, std::int64_t{1} << 33, 1, 1})}), ShapeError);
  op = {};
  op.padding = {huge, huge, huge, huge};
  CHECK_THROWS_AS(run(op, {f32({1, 1, 1, 1}), f32({1, 1, 1, 1})}), ShapeError);
  op.padding = {huge, huge, 0, 0};
  CHECK(run(op, {f32({1, 1, 1, 1}), f32({1, 1, 1, 1})}) ==
        std::vector{f32({1, 2 * huge + 1, 1, 1})});
}

TEST_CASE("conv2d reaches sizes beyond 2^31 elements") {
  const ops::Conv2d op;
  CHECK(run(op, {f32({4096, 1024, 1024, 3}), f32({64, 1, 1, 3})}) ==
        std::vector{f32({4096, 1024, 1024, 64})});
}

TEST_CASE("conv2d attributes out of range are refused with their values") {
  const std::vector<TensorSpec> inputs = {f32({1, 8, 8, 4}), f32({6, 3, 3, 4})};
  const auto refused = [&](const ops::Conv2d& op, std::initializer_list<const char*> parts) {
    check_error<ArgumentError>([&] { run(op, inputs); }, parts);
  };
  refused({{0, 1}, {}, {1, 1}, 1, {}}, {"stride is (0, 1)"});
  refused({{1, -2}, {}, {1, 1}, 1, {}}, {"stride is (1, -2)"});
  refused({{1, 1}, {0, -1, 0, 0}, {1, 1}, 1, {}}, {"padding is (0, -1, 0, 0)"});
  refused({{1, 1}, {0, 0, std::int64_t{1} << 62, 0}, {1, 1}, 1, {}}, {"padding is"});
  refused({{1, 1}, {}, {1, 0}, 1, {}}, {"dilation is (1, 0)"});
  refused({{1, 1}, {}, {1, 1}, 0, {}}, {"groups is 0"});
  refused({{1, 1}, {}, {1, 1}, std::int64_t{1} << 40, {}}, {"groups is"});
}

TEST_CASE("conv2d channels and groups must agree") {
  ops::Conv2d op;
  op.groups = 2;
  CHECK(run(op, {f32({1, 8, 8, 4}), f32({6, 3, 3, 2})}) == std::vector{f32({1, 6, 6, 6})});
  check_error<ShapeError>(
      [&] {
        run(op, {f32({1, 8, 8, 5}), f32({6, 3, 3, 2})});
      },
      {"input has 5 channels", "expects 4", "2 in each of 2 groups"});
  check_error<ShapeError>(
      [&] {
        run(op, {f32({1, 8, 8, 4}), f32({5, 3, 3, 2})});
      },
      {"output channels 5", "groups 2"});
  op.groups = 4;  // depthwise with a multiplier
  CHECK(run(op, {f32({1, 8, 8, 4}), f32({8, 3, 3, 1})}) == std::vector{f32({1, 6, 6, 8})});
  check_error<ShapeError>(
      [] {
        run(ops::Conv2dGradWeight{{1, 1}, {}, {1, 1}, 3, {3, 3}, false},
            {f32({1, 8, 8, 4}), f32({1, 6, 6, 6})});
      },
      {"input channels 4", "groups 3"});
}

TEST_CASE("conv2d tells a channels-first image or weight") {
  check_error<ShapeError>(
      [] {
        run(ops::Conv2d{}, {f32({1, 3, 8, 8}), f32({6, 5, 5, 3})});
      },
      {"8 channels", "expects 3", "x.transpose(0, 2, 3, 1)"});
  check_error<ShapeError>(
      [] {
        run(ops::Conv2d{}, {f32({1, 8, 8, 3}), f32({6, 3, 5, 5})});
      },
      {"3 channels", "expects 5", "weight.transpose(0, 2, 3, 1)"});
}

TEST_CASE("conv2d guesses at nothing where the weight is in the layout of memory") {
  const auto text_of = [](TensorSpec input, TensorSpec weight) {
    try {
      run(ops::Conv2d{}, {std::move(input), std::move(weight)});
    } catch (const ShapeError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  // The window is as high as the image has channels.
  const std::string channels = text_of(f32({1, 8, 8, 3}), f32({6, 3, 3, 4}));
  CHECK(channels.find("3 channels, weight expects 4") != std::string::npos);
  CHECK(channels.find("hint") == std::string::npos);
  // Advice on images is not for weights.
  const std::string rank = text_of(f32({1, 8, 8, 3}), f32({3, 3, 3}));
  CHECK(rank.find("weight (3, 3, 3) has 3 axes, expected 4") != std::string::npos);
  CHECK(rank.find("hint") == std::string::npos);
}

TEST_CASE("conv2d checks ranks, types, bias and residual") {
  const TensorSpec x = f32({1, 8, 8, 4}), w = f32({6, 3, 3, 4});
  check_error<ShapeError>(
      [&] {
        run(ops::Conv2d{}, {f32({8, 8, 4}), w});
      },
      {"3 axes", "(N, H, W, C)", "(1, H, W, C)"});
  check_error<ShapeError>([&] { run(ops::Conv2d{}, {x, f32({6, 36})}); }, {"weight", "2 axes"});
  check_error<ShapeError>([&] { run(ops::Conv2d{}, {x, w, f32({7})}); }, {"bias is (7)", "(6)"});
  check_error<DTypeError>(
      [&] {
        run(ops::Conv2d{}, {u8({1, 8, 8, 4}), w});
      },
      {"input is u8", "normalize_image"});
  check_error<DTypeError>(
      [&] {
        run(ops::Conv2d{}, {x, f64({6, 3, 3, 4})});
      },
      {"weight is f64", "input is f32"});
  check_error<DTypeError>([&] { run(ops::Conv2d{}, {x, w, f64({6})}); }, {"bias is f64"});
  check_error<ShapeError>([&] { run(ops::Conv2d{}, {f32({1, 0, 8, 4}), w}); }, {"no pixel"});
  check_error<ArgumentError>([&] { run(ops::Conv2d{}, {x}); }, {"2 to 3", "got 1"});
  ops::Conv2d fused;
  fused.epilogue.residual = true;
  CHECK(run(fused, {x, w, f32({1, 6, 6, 6})}) == std::vector{f32({1, 6, 6, 6})});
  check_error<ShapeError>(
      [&] {
        run(fused, {x, w, f32({6})});
      },
      {"residual is (6)", "(1, 6, 6, 6)"});
  check_error<ArgumentError>([&] { run(fused, {x, w}); }, {"3 to 4", "got 2"});
}

TEST_CASE("a convolution that measures has a second result") {
  const TensorSpec x = f32({1, 8, 8, 4}), w = f32({6, 3, 3, 4}), c = f32({4});
  ops::Conv2d forward;
  forward.epilogue.moments = true;
  CHECK(run(forward, {x, w}) == std::vector{f32({1, 6, 6, 6}), f32({3, 6})});
  ops::Conv2dGradInput backward;
  backward.input_size = {8, 8};
  backward.sums.wanted = true;
  const TensorSpec y = f32({1, 6, 6, 6});
  CHECK(run(backward, {y, w, x, c, c, c}) == std::vector{x, f32({2, 4})});
  check_error<ArgumentError>([&] { run(backward, {y, w}); }, {"batch_mean", "got 2"});
  check_error<ShapeError>([&] { run(backward, {y, w, y, c, c, c}); }, {"input is (1, 6, 6, 6)"});
  check_error<ShapeError>([&] { run(backward, {y, w, x, c, c, f32({6})}); }, {"offset is (6)"});
  check_error<DTypeError>([&] { run(backward, {y, w, x, f64({4}), c, c}); }, {"batch_mean is f64"});
  backward.sums.activation = ActivationKind::kSigmoid;
  check_error<ArgumentError>([&] { run(backward, {y, w, x, c, c, c}); }, {"sigmoid", "relu6"});
}

TEST_CASE("a gradient that is finished takes what is added and what a ReLU gave") {
  const TensorSpec x = f32({1, 8, 8, 4}), y = f32({1, 6, 6, 6}), w = f32({6, 3, 3, 4});
  const TensorSpec c = f32({4});
  ops::Conv2dGradInput op;
  op.input_size = {8, 8};
  op.finish = {true, true};
  CHECK(run(op, {y, w, x, x}) == std::vector{x});
  check_error<ArgumentError>([&] { run(op, {y, w, x}); }, {"residual, relu_output", "got 3"});
  check_error<ShapeError>([&] { run(op, {y, w, y, x}); }, {"residual is (1, 6, 6, 6)", "residual"});
  check_error<ShapeError>([&] { run(op, {y, w, x, y}); }, {"relu_output is (1, 6, 6, 6)"});
  check_error<DTypeError>([&] { run(op, {y, w, x, f64({1, 8, 8, 4})}); }, {"relu_output is f64"});
  op.finish = {false, true};
  CHECK(run(op, {y, w, x}) == std::vector{x});
  check_error<ShapeError>([&] { run(op, {y, w, y}); }, {"relu_output is (1, 6, 6, 6)"});
  op.sums.wanted = true;
  CHECK(run(op, {y, w, x, x, c, c, c}) == std::vector{x, f32({2, 4})});
  check_error<ShapeError>([&] { run(op, {y, w, x, x, c, c, f32({6})}); }, {"offset is (6)"});
}

TEST_CASE("a gradient that is finished takes the signs of what a ReLU gave, behind that") {
  const TensorSpec x = f32({1, 8, 8, 16}), y = f32({1, 6, 6, 6}), w = f32({6, 3, 3, 16});
  const TensorSpec signs{{1, 8, 8, 2}, DType::kUInt8}, c = f32({16});
  ops::Conv2dGradInput op;
  op.input_size = {8, 8};
  op.finish = {true, true, true};
  CHECK(run(op, {y, w, x, x, signs}) == std::vector{x});
  check_error<ArgumentError>([&] { run(op, {y, w, x, x}); }, {"relu_output, signs", "got 4"});
  check_error<ShapeError>([&] { run(op, {y, w, x, x, x}); }, {"signs is (1, 8, 8, 16)"});
  check_error<DTypeError>([&] { run(op, {y, w, x, x, f32({1, 8, 8, 2})}); }, {"signs is f32"});
  op.sums.wanted = true;
  CHECK(run(op, {y, w, x, x, signs, x, c, c, c}) == std::vector{x, f32({2, 16})});
  op.sums.wanted = false;
  op.finish.relu = false;
  check_error<ArgumentError>([&] { run(op, {y, w, x, signs}); }, {"signs", "no relu"});
  ops::Conv2d forward;
  forward.epilogue.signs = true;
  check_error<ArgumentError>([&] { run(forward, {x, w}); }, {"only a batch norm gives signs"});
}
