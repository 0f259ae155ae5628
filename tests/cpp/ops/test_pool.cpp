#include <doctest/doctest.h>

#include <algorithm>

#include "pycnn/error.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

namespace {

std::vector<TensorSpec> run(const Op& op, const std::vector<TensorSpec>& inputs) {
  return infer(op, inputs);
}

struct Line {
  std::int64_t size, before, after, kernel, dilation, stride;
  bool ceil_mode;
};

// Windows taken one by one: with ceil_mode another one follows as long as cells are uncovered and
// it does not start behind the image. 0 when none, -1 when one holds no cell of the image.
std::int64_t counted(const Line& a) {
  const std::int64_t extent = (a.kernel - 1) * a.dilation + 1, end = a.size + a.after;
  std::int64_t count = 0;
  bool touches = true;
  for (std::int64_t start = -a.before;; start += a.stride) {
    const bool fits = start + extent <= end;
    const bool uncovered = start - a.stride + extent < end;
    const bool wanted = a.ceil_mode ? uncovered && start < a.size : fits;
    if (!wanted) break;
    bool any = false;
    for (std::int64_t k = 0; k < a.kernel; ++k) {
      const std::int64_t cell = start + k * a.dilation;
      any |= cell >= 0 && cell < a.size;
    }
    touches &= any;
    ++count;
  }
  return touches ? count : -1;
}

}  // namespace

TEST_CASE("max and average pool give as many outputs as windows fit, on odd geometry") {
  int fitting = 0, refused = 0, empty = 0;
  for (const std::int64_t size : {1, 2, 3, 6, 7, 13}) {
    for (const std::int64_t kernel : {1, 2, 3, 5}) {
      for (const std::int64_t stride : {1, 2, 3, 50}) {
        for (const std::int64_t dilation : {1, 2, 3, 9}) {
          for (const std::int64_t before : {0, 1, 2, 4}) {
            for (const std::int64_t after : {0, 1, 2}) {
              for (const bool ceil_mode : {false, true}) {
                const Line line = {size, before, after, kernel, dilation, stride, ceil_mode};
                const ops::MaxPool2d op{
                    {1, kernel}, {1, stride}, {0, 0, before, after}, {1, dilation}, ceil_mode};
                const TensorSpec x = f32({2, 1, size, 3});
                INFO("size ", size, " kernel ", kernel, " stride ", stride, " dilation ", dilation,
                     " padding ", before, " ", after, " ceil ", ceil_mode);
                if (std::max(before, after) > ((kernel - 1) * dilation + 1) / 2) {
                  CHECK_THROWS_AS(run(op, {x}), ArgumentError);
                  continue;
                }
                const std::int64_t n = counted(line);
                if (n <= 0) {
                  CHECK_THROWS_AS(run(op, {x}), ShapeError);
                  ++(n == 0 ? refused : empty);
                  continue;
                }
                ++fitting;
                const TensorSpec y = f32({2, 1, n, 3});
                REQUIRE(run(op, {x}) == std::vector{y});
                CHECK(run(ops::MaxPool2dGrad{op}, {x, y}) == std::vector{x});
                if (dilation != 1) continue;
                const ops::AvgPool2d avg{op.kernel_size, op.stride, op.padding, ceil_mode, false};
                CHECK(run(avg, {x}) == std::vector{y});
                CHECK(run(ops::AvgPool2dGrad{avg, {1, size}}, {y}) == std::vector{x});
              }
            }
          }
        }
      }
    }
  }
  CHECK(fitting > 500);
  CHECK(refused > 100);
  CHECK(empty > 0);
}

TEST_CASE("known pool sizes of PyTorch") {
  const auto out = [](std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t pad,
                      bool ceil_mode) {
    const ops::MaxPool2d op{
        {kernel, kernel}, {stride, stride}, {pad, pad, pad, pad}, {1, 1}, ceil_mode};
    return run(op, {f32({1, size, size, 1})})[0].shape[1];
  };
  CHECK(out(112, 3, 2, 0, true) == 56);  // GoogLeNet maxpool1
  CHECK(out(112, 3, 2, 0, false) == 55);
  CHECK(out(112, 3, 2, 1, false) == 56);  // ResNet
  CHECK(out(55, 3, 2, 0, false) == 27);   // AlexNet
  CHECK(out(5, 2, 2, 1, true) == 3);      // a fourth would start in the padding
  CHECK(out(2, 3, 2, 0, true) == 1);      // hangs over the end
}

TEST_CASE("pool errors name padding, kernel and geometry") {
  const auto pool = [](Pair kernel, Padding padding, Pair dilation = {1, 1}) {
    return ops::MaxPool2d{kernel, {2, 2}, padding, dilation, false};
  };
  const TensorSpec x = f32({1, 8, 8, 1});
  check_error<ArgumentError>(
      [&] {
        run(pool({2, 2}, {3, 3, 3, 3}), {x});
      },
      {"padding (3, 3, 3, 3) exceeds half of kernel_size (2, 2)", "fully outside"});
  check_error<ShapeError>(
      [&] {
        run(pool({9, 2}, {}), {x});
      },
      {"height", "N = 8", "P = 0 + 0", "F = 9", "stride = 2"});
  check_error<ShapeError>(
      [&] {
        run(pool({2, 1}, {2, 2, 0, 0}, {3, 1}), {f32({1, 1, 8, 1})});
      },
      {"step over", "dilation 3", "height"});
  check_error<ArgumentError>([&] { run(pool({0, 2}, {}), {x}); }, {"kernel_size is (0, 2)"});
  check_error<ArgumentError>([&] { run(pool({2, 2}, {0, 0, 0, -1}), {x}); }, {"padding is"});
  check_error<DTypeError>([&] { run(pool({2, 2}, {}), {u8({1, 8, 8, 1})}); }, {"u8"});
  const std::int64_t huge = (std::int64_t{1} << 31) - 1;
  CHECK_THROWS_AS(run(pool({2, 2}, {huge / 2, huge / 2, 0, 0}, {huge, 1}), {x}), Error);
}

TEST_CASE("adaptive pools give the size asked for") {
  CHECK(run(ops::AdaptiveAvgPool2d{{7, 6}}, {f32({2, 14, 5, 3})}) ==
        std::vector{f32({2, 7, 6, 3})});
  CHECK(run(ops::AdaptiveAvgPool2d{}, {f64({0, 2, 3, 4})}) == std::vector{f64({0, 1, 1, 4})});
  CHECK(run(ops::AdaptiveAvgPool2dGrad{{14, 5}}, {f32({2, 7, 6, 3})}) ==
        std::vector{f32({2, 14, 5, 3})});
  check_error<ArgumentError>(
      [] {
        run(ops::AdaptiveAvgPool2d{{0, 2}}, {f32({2, 7, 5, 3})});
      },
      {"output_size is (0, 2)"});
  check_error<ShapeError>([] { run(ops::AdaptiveAvgPool2d{}, {f32({2, 0, 5, 3})}); }, {"no pixel"});
  check_error<DTypeError>([] { run(ops::AdaptiveAvgPool2d{}, {u8({2, 7, 5, 3})}); }, {"u8"});
}

TEST_CASE("global pools leave batch and channels") {
  CHECK(run(ops::GlobalAvgPool2d{}, {f32({2, 7, 5, 3})}) == std::vector{f32({2, 3})});
  CHECK(run(ops::GlobalMaxPool2d{}, {f64({0, 7, 5, 3})}) == std::vector{f64({0, 3})});
  CHECK(run(ops::GlobalAvgPool2dGrad{{7, 5}}, {f32({2, 3})}) == std::vector{f32({2, 7, 5, 3})});
  check_error<ShapeError>([] { run(ops::GlobalAvgPool2d{}, {f32({2, 0, 5, 3})}); }, {"no pixel"});
  check_error<ShapeError>(
      [] {
        run(ops::GlobalMaxPool2dGrad{}, {f32({2, 7, 5, 3}), f32({2, 4})});
      },
      {"grad_output is (2, 4)", "(2, 3)"});
}
