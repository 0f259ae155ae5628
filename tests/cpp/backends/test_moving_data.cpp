#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

// Ops that move elements: every result is exact, for every element type.
namespace {

constexpr DType kTypes[] = {DType::kFloat32, DType::kFloat64, DType::kUInt8, DType::kInt32,
                            DType::kInt64};

// Whole numbers that every type holds, different from one element to the next.
HostTensor counting(Shape shape, DType dtype, int start = 0) {
  HostTensor tensor(TensorSpec{std::move(shape), dtype});
  for (std::size_t i = 0; i < tensor.size(); ++i)
    tensor.set(i, static_cast<double>((static_cast<std::size_t>(start) + i) % 251));
  return tensor;
}

std::size_t offset_of(const Shape& shape, const Shape& index) {
  std::int64_t offset = 0;
  for (std::size_t a = 0; a < shape.size(); ++a) offset = offset * shape[a] + index[a];
  return static_cast<std::size_t>(offset);
}

// Calls f(flat index, index) for every element of a tensor.
template <class F>
void for_elements(const Shape& shape, F&& f) {
  Shape index(shape.size(), 0);
  const auto count = static_cast<std::size_t>(element_count(shape));
  for (std::size_t i = 0; i < count; ++i) {
    f(i, index);
    for (std::size_t a = shape.size(); a-- > 0;) {
      if (++index[a] < shape[a]) break;
      index[a] = 0;
    }
  }
}

// expected(index) names the element of the result.
template <class OpType, class F>
void check_exact(const OpType& op, const std::vector<HostTensor>& inputs, F&& expected) {
  check_kernels(op, inputs, [&](const std::vector<HostTensor>& out) {
    for_elements(out[0].spec.shape, [&](std::size_t i, const Shape& index) {
      if (out[0][i] != expected(index))
        FAIL_CHECK("element " << i << " is " << out[0][i] << ", expected " << expected(index));
    });
  });
}

}  // namespace

TEST_CASE("concat puts its inputs side by side along the axis") {
  struct Case {
    std::vector<Shape> shapes;
    std::int64_t axis;
  };
  const std::vector<Case> cases = {
      {{{2, 5, 5, 6}, {2, 5, 5, 1}, {2, 5, 5, 17}}, -1},
      {{{2, 5, 5, 6}, {2, 5, 5, 6}}, 3},
      {{{2, 3, 5, 4}, {2, 1, 5, 4}, {2, 4, 5, 4}}, 1},
      {{{3, 4}, {1, 4}, {0, 4}}, 0},
      {{{0, 4, 4, 3}, {0, 4, 4, 5}}, -1},
      {{{7}}, 0},
      {{{64, 8, 8, 64}, {64, 8, 8, 3}}, -1},
  };
  for (const Case& c : cases)
    for (const DType dtype : kTypes) {
      std::vector<HostTensor> inputs;
      for (const Shape& shape : c.shapes)
        inputs.push_back(counting(shape, dtype, static_cast<int>(inputs.size()) * 50));
      const auto axis = static_cast<std::size_t>(
          c.axis < 0 ? c.axis + static_cast<std::int64_t>(c.shapes[0].size()) : c.axis);
      check_exact(ops::Concat{c.axis}, inputs, [&](Shape index) {
        std::size_t which = 0;
        while (index[axis] >= c.shapes[which][axis]) index[axis] -= c.shapes[which++][axis];
        return inputs[which][offset_of(c.shapes[which], index)];
      });
    }
}

TEST_CASE("slice cuts a box") {
  struct Case {
    Shape shape;
    std::vector<std::int64_t> begin, size;
  };
  const std::vector<Case> cases = {
      {{2, 5, 6, 7}, {0, 0, 0, 2}, {2, 5, 6, 3}},
      {{2, 5, 6, 7}, {0, 1, 2, 0}, {-1, 3, 2, -1}},
      {{2, 5, 6, 7}, {1, 0, 0, 0}, {1, 5, 6, 7}},
      {{9}, {3}, {-1}},
      {{4, 4}, {0, 0}, {4, 4}},
      {{4, 4}, {2, 4}, {2, 0}},
      {{0, 4}, {0, 1}, {0, 2}},
      {{2, 2, 2, 3, 2, 2}, {0, 1, 0, 1, 0, 1}, {2, 1, 1, 2, 2, 1}},
      {{40, 30, 20}, {1, 2, 3}, {38, 25, 11}},
      {{}, {}, {}},
  };
  for (const Case& c : cases)
    for (const DType dtype : kTypes) {
      const HostTensor input = counting(c.shape, dtype);
      check_exact(ops::Slice{c.begin, c.size}, {input}, [&](Shape index) {
        for (std::size_t a = 0; a < index.size(); ++a) index[a] += c.begin[a];
        return input[offset_of(c.shape, index)];
      });
    }
}

TEST_CASE("pad surrounds with the value") {
  struct Case {
    Shape shape;
    std::vector<std::int64_t> before, after;
  };
  const std::vector<Case> cases = {
      {{2, 5, 6, 3}, {0, 2, 1, 0}, {0, 0, 3, 0}},
      {{2, 5, 6, 3}, {0, 0, 0, 2}, {0, 0, 0, 1}},
      {{2, 5, 6, 3}, {1, 2, 3, 4}, {4, 3, 2, 1}},
      {{2, 5, 6, 3}, {0, 0, 0, 0}, {0, 0, 0, 0}},
      {{4}, {2}, {0}},
      {{0, 3}, {2, 0}, {1, 1}},
      {{2, 0}, {1, 2}, {0, 0}},
      {{3, 4}, {1, 0}, {0, 0}},
      {{0, 4, 4, 3}, {0, 1, 1, 0}, {0, 1, 1, 0}},
      {{}, {}, {}},
      {{32, 14, 14, 16}, {0, 2, 2, 0}, {0, 2, 2, 0}},
  };
  for (const Case& c : cases)
    for (const DType dtype : kTypes)
      for (const double value : {0.0, 7.0}) {
        const HostTensor input = counting(c.shape, dtype);
        check_exact(ops::Pad{c.before, c.after, value}, {input}, [&](Shape index) {
          for (std::size_t a = 0; a < index.size(); ++a) {
            index[a] -= c.before[a];
            if (index[a] < 0 || index[a] >= c.shape[a]) return value;
          }
          return input[offset_of(c.shape, index)];
        });
      }
}

TEST_CASE("pad takes negative zero and infinity as they are") {
  const HostTensor input = counting({2, 2}, DType::kFloat32);
  for (const double value : {-0.0, -kInfinity})
    check_kernels(ops::Pad{{1, 0}, {0, 1}, value}, {input}, [&](const auto& out) {
      CHECK(out[0][0] == value);
      CHECK(std::signbit(out[0][0]));
    });
}

TEST_CASE("reshape keeps the elements") {
  for (const DType dtype : kTypes)
    for (const Shape& shape : {Shape{2, 5, 6, 7}, Shape{0, 4}, Shape{300, 400}}) {
      const HostTensor input = counting(shape, dtype);
      check_kernels(ops::Reshape{{-1, shape.back()}}, {input},
                    [&](const auto& out) { CHECK(out[0].bytes == input.bytes); });
    }
}

TEST_CASE("transpose moves axes") {
  struct Case {
    Shape shape;
    std::vector<std::int64_t> permutation;
  };
  const std::vector<Case> cases = {
      {{2, 5, 5, 16}, {0, 3, 1, 2}},
      {{2, 16, 5, 5}, {0, 2, 3, 1}},
      {{3, 7, 9, 6}, {0, 3, 1, 2}},
      {{3, 6, 7, 9}, {0, 2, 3, 1}},
      {{2, 33, 20, 17}, {0, 3, 1, 2}},
      {{1, 1, 1, 1}, {3, 2, 1, 0}},
      {{4, 5}, {1, 0}},
      {{5, 1}, {1, 0}},
      {{130, 70}, {1, 0}},
      {{2, 3, 4, 5}, {0, 2, 1, 3}},
      {{2, 3, 4, 5}, {3, 2, 1, 0}},
      {{2, 3, 4, 5}, {0, 1, 2, 3}},
      {{2, 3, 1, 5}, {1, 2, 0, 3}},
      {{2, 3, 4, 1}, {2, 3, 0, 1}},
      {{2, 3, 2, 3, 2}, {4, 1, 3, 0, 2}},
      {{0, 3, 4}, {2, 0, 1}},
      {{3, 0}, {1, 0}},
      {{6}, {0}},
      {{}, {}},
      {{2, 3, 2, 2, 3, 2, 2, 3}, {7, 5, 3, 1, 6, 4, 2, 0}},
      {{2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, {9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
      {{2, 150, 4, 3}, {0, 2, 1, 3}},
      {{2, 3, 300, 4}, {3, 0, 2, 1}},
  };
  for (const Case& c : cases)
    for (const DType dtype : kTypes) {
      const HostTensor input = counting(c.shape, dtype);
      check_exact(ops::Transpose{c.permutation}, {input}, [&](const Shape& index) {
        Shape source(index.size());
        for (std::size_t a = 0; a < index.size(); ++a)
          source[static_cast<std::size_t>(c.permutation[a])] = index[a];
        return input[offset_of(c.shape, source)];
      });
    }
}

TEST_CASE("take picks rows, and -1 gives zeros") {
  const std::vector<std::int64_t> indices = {3, 0, -1, 3, 2, -1, 3};
  for (const Shape& shape : {Shape{4, 3, 5}, Shape{5}, Shape{4, 0}, Shape{6, 2000}})
    for (const DType dtype : kTypes) {
      const HostTensor input = counting(shape, dtype, 1);
      check_exact(ops::Take{indices}, {input}, [&](Shape index) {
        index[0] = indices[static_cast<std::size_t>(index[0])];
        return index[0] < 0 ? 0.0 : input[offset_of(shape, index)];
      });
    }
  check_exact(ops::Take{{}}, {counting({4, 3}, DType::kFloat32)}, [](const Shape&) { return 0.0; });
  check_exact(ops::Take{{-1, -1}}, {counting({0, 3}, DType::kFloat32)},
              [](const Shape&) { return 0.0; });
}

TEST_CASE("the gradient of take sums what a row was taken for") {
  const std::vector<std::int64_t> indices = {3, 0, -1, 3, 2, -1, 3};
  for (const Shape& rest : {Shape{}, Shape{3, 5}, Shape{0}, Shape{2000}}) {
    Shape shape = rest;
    shape.insert(shape.begin(), 7);
    const HostTensor grad = random_integers(shape, 5, 100);
    check_exact(ops::TakeGrad{indices, 6}, {grad}, [&](Shape index) {
      const std::int64_t row = index[0];
      double sum = 0.0;
      for (std::size_t i = 0; i < indices.size(); ++i) {
        index[0] = static_cast<std::int64_t>(i);
        if (indices[i] == row) sum += grad[offset_of(shape, index)];
      }
      return sum;
    });
  }
  check_exact(ops::TakeGrad{{}, 3}, {HostTensor(TensorSpec{{0, 2}, DType::kFloat32})},
              [](const Shape&) { return 0.0; });
}

TEST_CASE("take_windows copies what of a window lies in its image, and fills the rest") {
  constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max();
  // image, top, left, mirrored, first and end row, first and end column of the box
  const std::vector<Shape> places = {
      {0, 0, 0, 0, 0, 0, 0, 0},     {1, 1, 2, 0, 1, 3, 2, 4},        {2, -2, -3, 1, 0, 0, 0, 0},
      {1, 3, 4, 1, 2, 99, -5, 3},   {0, -1, -1, 0, -4, 2, 1, kFar},  {2, 4, 5, 1, 3, 1, 4, 2},
      {3, 0, 0, 0, 1, 2, 1, 2},     {-1, 0, 0, 1, 0, 0, 0, 0},       {2, kFar, 0, 1, 0, 0, 0, 0},
      {2, 0, -kFar, 0, 0, 0, 0, 0}, {1, -kFar, kFar, 1, 0, 1, 0, 1}, {2, 1, -2, 1, 0, 2, 3, kFar}};
  HostTensor rows(TensorSpec{{static_cast<std::int64_t>(places.size()), 8}, DType::kInt64});
  // As they are: `set` takes a double, which does not hold every one of them.
  for (std::size_t i = 0; i < rows.size(); ++i) rows.as<std::int64_t>()[i] = places[i / 8][i % 8];
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kUInt8})
    for (const std::int64_t channels : {1, 3, 4, 7})
      for (const Pair size : {Pair{1, 1}, Pair{5, 6}, Pair{3, 11}, Pair{8, 2}}) {
        CAPTURE(channels);
        const HostTensor images = counting({3, 5, 6, channels}, dtype);
        const std::size_t box_fills = channels == 4 ? 1 : static_cast<std::size_t>(channels);
        ops::TakeWindows op{size, 9.0, {}};
        for (std::size_t c = 0; c < box_fills; ++c)
          op.box_fill.push_back(20.0 + static_cast<double>(c));
        check_exact(op, {images, rows}, [&](const Shape& at) {
          const Shape& place = places[static_cast<std::size_t>(at[0])];
          const auto channel = static_cast<std::size_t>(at[3]);
          if (at[1] >= place[4] && at[1] < place[5] && at[2] >= place[6] && at[2] < place[7])
            return op.box_fill[box_fills == 1 ? 0 : channel];
          const std::int64_t x = place[3] != 0 ? size[1] - 1 - at[2] : at[2];
          // Without the sums of large numbers.
          const bool inside = place[0] >= 0 && place[0] < 3 && place[1] >= -at[1] &&
                              place[1] < 5 - at[1] && place[2] >= -x && place[2] < 6 - x;
          if (!inside) return 9.0;
          return images[offset_of({3, 5, 6, channels},
                                  {place[0], place[1] + at[1], place[2] + x, at[3]})];
        });
      }
}
