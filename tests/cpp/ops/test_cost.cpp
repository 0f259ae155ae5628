#include <doctest/doctest.h>

#include <limits>

#include "support/op_examples.h"

using namespace pycnn;

namespace {
Cost cost_of(const Op& op, const std::vector<TensorSpec>& inputs) {
  return cost(op, inputs, infer(op, inputs));
}
}  // namespace

TEST_CASE("convolution and its two gradients cost the same multiply-adds") {
  ops::Conv2d op;
  op.groups = 2;
  const TensorSpec x = f32({2, 9, 8, 6}), w = f32({4, 3, 2, 3}), y = f32({2, 7, 7, 4});
  constexpr std::int64_t kMacs = 2 * 7 * 7 * 4 * 3 * 2 * 3;
  CHECK(cost_of(op, {x, w}).macs == kMacs);
  CHECK(cost_of(op, {x, w}).other_flops == 0);
  CHECK(cost_of(op, {x, w, f32({4})}).other_flops == 2 * 7 * 7 * 4);
  CHECK(cost_of(op, {x, w}).bytes == 4 * (2 * 9 * 8 * 6 + 4 * 3 * 2 * 3 + 2 * 7 * 7 * 4));
  CHECK(cost_of(ops::Conv2dGradInput{{1, 1}, {}, {1, 1}, 2, {9, 8}}, {y, w}).macs == kMacs);
  CHECK(cost_of(ops::Conv2dGradWeight{{1, 1}, {}, {1, 1}, 2, {3, 2}, false}, {x, y}).macs == kMacs);
}

TEST_CASE("dense layers cost rows x in x out") {
  CHECK(cost_of(ops::Dense{}, {f32({5, 3}), f32({7, 3}), f32({7})}).macs == 5 * 3 * 7);
  CHECK(cost_of(ops::DenseGradInput{}, {f32({5, 7}), f32({7, 3})}).macs == 5 * 3 * 7);
  CHECK(cost_of(ops::DenseGradWeight{true}, {f32({5, 3}), f32({5, 7})}).macs == 5 * 3 * 7);
}

TEST_CASE("cells between windows are not read") {
  ops::Conv2d op;
  op.stride = {2, 3};
  const TensorSpec x = f32({2, 9, 8, 6}), w = f32({4, 1, 2, 6}), y = f32({2, 5, 3, 4});
  // Of 9 x 8 cells the windows touch 5 rows, and 3 x 2 columns.
  constexpr std::int64_t kBytes = 4 * (2 * 5 * 6 * 6 + 4 * 2 * 6 + 2 * 5 * 3 * 4);
  CHECK(cost_of(op, {x, w}).bytes == kBytes);
  CHECK(cost_of(ops::Conv2dGradWeight{{2, 3}, {}, {1, 1}, 1, {1, 2}, false}, {x, y}).bytes ==
        kBytes);
  ops::MaxPool2d pool;
  pool.kernel_size = {1, 1};
  pool.stride = {2, 2};
  CHECK(cost_of(pool, {x}).bytes == 4 * 2 * (2 * 5 * 4 * 6));
  // All of it where windows touch.
  pool.kernel_size = {2, 2};
  CHECK(cost_of(pool, {f32({2, 8, 8, 6})}).bytes == 4 * 2 * 6 * (8 * 8 + 4 * 4));
  CHECK(cost_of(op, {f32({0, 9, 8, 6}), w}).bytes == 4 * (4 * 2 * 6));
}

TEST_CASE("of what a part is copied from, that part is read") {
  CHECK(cost_of(ops::Slice{{1, 0}, {2, 3}}, {f32({100, 3})}).bytes == 2 * 4 * 2 * 3);
  CHECK(cost_of(ops::Take{{0, 7}}, {f32({100, 3})}).bytes == 2 * 4 * 2 * 3);
  const TensorSpec images{{1000, 9, 9, 3}, DType::kUInt8}, places{{4, 8}, DType::kInt64};
  CHECK(cost_of(ops::TakeWindows{{5, 6}}, {images, places}).bytes == 2 * 4 * 5 * 6 * 3 + 4 * 8 * 8);
}

TEST_CASE("every op has a cost that is not negative, and a reshape is free") {
  for (const OpExample& example : op_examples()) {
    INFO(op_name(example.op));
    const Cost c = cost_of(example.op, example.inputs);
    CHECK(c.macs >= 0);
    CHECK(c.other_flops >= 0);
    CHECK(c.bytes >= 0);
  }
  CHECK(cost_of(ops::Reshape{{-1}}, {f32({2, 3})}).bytes == 0);
  CHECK(cost_of(ops::AdaptiveAvgPool2d{{7, 6}}, {f32({2, 7, 6, 3})}).bytes == 0);
  CHECK(cost_of(ops::AdaptiveAvgPool2d{{7, 6}}, {f32({2, 7, 9, 3})}).other_flops == 2 * 7 * 9 * 3);
}

TEST_CASE("a cost beyond 64 bits stays at the largest number") {
  const std::int64_t big = std::int64_t{1} << 28;
  CHECK(cost_of(ops::Dense{}, {f32({big, big}), f32({big, big})}).macs ==
        std::numeric_limits<std::int64_t>::max());
}

TEST_CASE("a batch norm that knows the moments does not read its input") {
  const TensorSpec x = f32({4, 3, 3, 5}), c = f32({5}), moments = f32({3, 5});
  const Cost reads = cost_of(ops::BatchNormStatistics{}, {x, c, c, c, c});
  const Cost knows = cost_of(ops::BatchNormStatistics{}, {x, c, c, c, c, moments});
  CHECK(reads.bytes - knows.bytes == 4 * (4 * 3 * 3 * 5 - 3 * 5));
  CHECK(knows.other_flops < reads.other_flops);
}
