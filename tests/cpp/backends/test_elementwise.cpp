#include "rounded_results.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

// The element of a tensor that broadcasts to the output's element `index`, by the definition: axes
// aligned at the right, size 1 repeats.
std::size_t source_index(const Shape& shape, const Shape& output, std::size_t index) {
  std::size_t source = 0, step = 1;
  for (std::size_t k = 0; k < output.size(); ++k) {
    const auto size = static_cast<std::size_t>(output[output.size() - 1 - k]);
    const std::size_t coordinate = index % size;
    index /= size;
    if (k >= shape.size()) continue;
    const auto own = static_cast<std::size_t>(shape[shape.size() - 1 - k]);
    if (own != 1) source += coordinate * step;
    step *= own;
  }
  return source;
}

struct ShapePair {
  Shape a, b;
};
const std::vector<ShapePair> kPairs = {
    {{7}, {7}},
    {{2, 28, 28, 6}, {6}},
    {{6}, {2, 28, 28, 6}},
    {{3, 5, 5, 129}, {129}},
    {{20001}, {1}},
    {{}, {33}},
    {{}, {}},
    {{1, 1}, {1}},
    {{4, 1, 3}, {1, 5, 3}},
    {{2, 3, 1, 4, 1, 5, 1, 2}, {2, 1, 3, 4, 2, 1, 2, 1}},
    {{5, 1}, {1, 7}},
    {{2, 1, 1, 17}, {2, 9, 9, 17}},
    {{2, 9, 9, 1}, {2, 9, 9, 17}},
    {{3000, 3}, {3}},
    {{0, 4}, {4}},
    {{0, 4}, {1, 1}},
    {{3, 0}, {3, 1}},
};

// Results within so many units of the last place of the formula; 0: correctly rounded.
template <class OpType, class F>
void check_binary(F formula, const OpType& op = {}, double least = -2.0, double units = 0.0) {
  for (const ShapePair& pair : kPairs) {
    CAPTURE(to_string(pair.a));
    CAPTURE(to_string(pair.b));
    const HostTensor a = random_tensor(pair.a, 1, least), b = random_tensor(pair.b, 2);
    auto verify = [&](const HostTensor& x, const HostTensor& y, const HostTensor& out) {
      int wrong = 0;
      for (std::size_t i = 0; i < out.size(); ++i) {
        const double wanted = formula(x[source_index(x.spec.shape, out.spec.shape, i)],
                                      y[source_index(y.spec.shape, out.spec.shape, i)]);
        HostTensor rounded(TensorSpec{{}, out.spec.dtype});
        rounded.set(0, wanted);
        wrong += out[i] == rounded[0] || is_close(out, i, wanted, std::abs(wanted), units) ? 0 : 1;
      }
      CHECK(wrong == 0);
    };
    check_kernels(op, {a, b}, [&](const std::vector<HostTensor>& out) { verify(a, b, out[0]); });
    const HostTensor wide_a = to_float64(a), wide_b = to_float64(b);
    check_kernels(op, {wide_a, wide_b},
                  [&](const std::vector<HostTensor>& out) { verify(wide_a, wide_b, out[0]); });
  }
}

}  // namespace

TEST_CASE("add broadcasts as NumPy") {
  check_binary<ops::Add>([](double a, double b) { return a + b; });
}
TEST_CASE("subtract broadcasts as NumPy") {
  check_binary<ops::Subtract>([](double a, double b) { return a - b; });
}
TEST_CASE("multiply broadcasts as NumPy") {
  check_binary<ops::Multiply>([](double a, double b) { return a * b; });
}

TEST_CASE("divide, maximum, minimum, power and those of prelu broadcast as NumPy") {
  const auto check = [](BinaryKind kind, auto formula, double least = -2.0, double units = 0.0) {
    CAPTURE(binary_name(kind));
    check_binary<ops::Binary>(formula, {kind}, least, units);
  };
  check(BinaryKind::kDivide, [](double a, double b) { return a / b; });
  check(BinaryKind::kMaximum, [](double a, double b) { return std::max(a, b); });
  check(BinaryKind::kMinimum, [](double a, double b) { return std::min(a, b); });
  check(
      BinaryKind::kPower, [](double a, double b) { return std::pow(a, b); }, 0.01, 2.0);
  check(BinaryKind::kPrelu, [](double a, double b) { return a > 0 ? a : b * a; });
  check(BinaryKind::kPreluSlope, [](double a, double b) { return a > 0 ? 1.0 : b; });
  check(BinaryKind::kEqual, [](double a, double b) { return a == b ? 1.0 : 0.0; });
  check(BinaryKind::kStep, [](double a, double b) { return a > b ? 1.0 : a == b ? 0.5 : 0.0; });
}

TEST_CASE("maximum and minimum give NaN wherever there is one, and equal numbers are seen") {
  const HostTensor a({5}, {kNaN, 1.0, 2.0, kInfinity, -0.0}), b({5}, {1.0, kNaN, 2.0, 3.0, 0.0});
  for (const BinaryKind kind : {BinaryKind::kMaximum, BinaryKind::kMinimum})
    check_kernels(ops::Binary{kind}, {a, b}, [](const std::vector<HostTensor>& y) {
      CHECK(std::isnan(y[0][0]));
      CHECK(std::isnan(y[0][1]));
      CHECK(y[0][2] == 2.0);
    });
  const double equal[] = {0, 0, 1, 0, 1}, step[] = {0, 0, 0.5, 1, 0.5};
  check_kernels(ops::Binary{BinaryKind::kEqual}, {a, b}, [&](const std::vector<HostTensor>& y) {
    for (std::size_t i = 0; i < 5; ++i) CHECK(y[0][i] == equal[i]);
  });
  check_kernels(ops::Binary{BinaryKind::kStep}, {a, b}, [&](const std::vector<HostTensor>& y) {
    for (std::size_t i = 0; i < 5; ++i) CHECK(y[0][i] == step[i]);
  });
}

TEST_CASE("add of odd sizes, NaN and infinities") {
  for (const std::int64_t n : kOddSizes) {
    HostTensor a = random_tensor({n}, 1), b = random_tensor({n}, 2);
    if (n > 2) {
      a.set(1, kNaN);
      a.set(2, kInfinity);
      b.set(2, -kInfinity);
      b.set(static_cast<std::size_t>(n) - 1, kNaN);
    }
    check_kernels(ops::Add{}, {a, b}, [&](const std::vector<HostTensor>& out) {
      for (std::size_t i = 0; i < a.size(); ++i)
        CHECK(is_close(out[0], i, a[i] + b[i], std::abs(a[i] + b[i]), 1.0));
    });
  }
}

TEST_CASE("a tensor is added to itself") {
  const std::vector<TensorSpec> specs = {{{33}, DType::kFloat32}, {{33}, DType::kFloat32}};
  HostTensor x = random_tensor({33}, 1);
  const HostTensor before = x;
  const std::vector<TensorSpec> outputs = {specs[0]};
  const Kernel kernel = select_kernel(ops::Add{}, specs, outputs, {}).kernel;
  const TensorView views[2] = {{x.bytes.data(), &specs[0]}, {x.bytes.data(), &specs[1]}};
  const TensorView out[1] = {{x.bytes.data(), &outputs[0]}};
  const Op op = ops::Add{};
  KernelArgs args;
  args.op = &op;
  args.inputs = views;
  args.outputs = out;
  args.plan = kernel.plan.data();
  kernel.run(args);
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(x[i] == 2.0 * before[i]);
}

TEST_CASE("only inputs of the output's size may lie under it") {
  const std::vector<TensorSpec> inputs = {{{2, 6}, DType::kFloat32}, {{6}, DType::kFloat32}};
  const std::vector<TensorSpec> outputs = {inputs[0]};
  CHECK(select_kernel(ops::Add{}, inputs, outputs, {}).kernel.in_place ==
        std::vector<std::uint32_t>{0b01});
}

TEST_CASE("broadcasting over more than 8 separate axes is refused") {
  const Shape a = {2, 1, 2, 1, 2, 1, 2, 1, 2, 1}, b = {1, 2, 1, 2, 1, 2, 1, 2, 1, 2};
  const std::vector<TensorSpec> inputs = {{a, DType::kFloat32}, {b, DType::kFloat32}};
  const std::vector<TensorSpec> outputs = {{Shape(10, 2), DType::kFloat32}};
  CHECK_THROWS_AS(select_kernel(ops::Add{}, inputs, outputs, {}), UnsupportedError);
}

TEST_CASE("affine scales and shifts") {
  const ops::Affine op{1.25, -0.7};
  for (const std::int64_t n : kOddSizes) {
    const HostTensor x = random_tensor({n}, 4);
    for (const HostTensor& input : {x, to_float64(x)})
      check_kernels(op, {input}, [&](const std::vector<HostTensor>& y) {
        for (std::size_t i = 0; i < x.size(); ++i)
          CHECK(
              is_close(y[0], i, 1.25 * x[i] - 0.7, std::abs(1.25 * x[i]) + 0.7, kElementwiseUnits));
      });
  }
}

TEST_CASE("broadcast repeats elements of any size") {
  struct Case {
    Shape from, to;
  };
  const std::vector<Case> cases = {
      {{}, {33}},
      {{}, {}},
      {{3}, {4, 3}},
      {{4, 1}, {4, 9000}},
      {{2, 1, 3}, {2, 5, 3}},
      {{1, 5, 1}, {2, 5, 3}},
      {{1}, {0}},
      {{0, 3}, {2, 0, 3}},
      {{7}, {7}},
  };
  for (const Case& c : cases)
    for (const DType dtype :
         {DType::kFloat32, DType::kFloat64, DType::kUInt8, DType::kInt32, DType::kInt64}) {
      CAPTURE(to_string(c.to));
      HostTensor x(TensorSpec{c.from, dtype});
      for (std::size_t i = 0; i < x.size(); ++i) x.set(i, static_cast<double>(i % 200));
      check_kernels(ops::Broadcast{c.to}, {x}, [&](const std::vector<HostTensor>& y) {
        int wrong = 0;
        for (std::size_t i = 0; i < y[0].size(); ++i)
          wrong += y[0][i] == x[source_index(c.from, c.to, i)] ? 0 : 1;
        CHECK(wrong == 0);
      });
    }
}

TEST_CASE("fill writes every element in every type") {
  for (const std::int64_t n : kOddSizes)
    for (const DType dtype :
         {DType::kFloat32, DType::kFloat64, DType::kUInt8, DType::kInt32, DType::kInt64})
      check_kernels(ops::Fill{{n}, dtype, 3.0}, {}, [](const std::vector<HostTensor>& y) {
        int wrong = 0;
        for (std::size_t i = 0; i < y[0].size(); ++i) wrong += y[0][i] == 3.0 ? 0 : 1;
        CHECK(wrong == 0);
      });
}

TEST_CASE("arithmetic of bfloat16 has the numbers of float32, rounded") {
  std::vector<std::pair<Shape, Shape>> pairs = {{{40, 64}, {64}},
                                                {{300}, {1}},
                                                {{2, 9, 9, 1}, {2, 9, 9, 17}},
                                                {{2, 1, 1, 35}, {2, 3, 3, 35}}};
  for (const std::int64_t n : kOddSizes) pairs.push_back({{n}, {n}});
  for (const auto& [a, b] : pairs) {
    CAPTURE(to_string(a));
    CAPTURE(to_string(b));
    const std::vector<HostTensor> in = {odd_bfloat16(a, 1), odd_bfloat16(b, 3)};
    check_rounded(ops::Add{}, in);
    check_rounded(ops::Subtract{}, in);
    check_rounded(ops::Multiply{}, in);
    check_rounded(ops::Binary{BinaryKind::kMaximum}, in);
  }
}

TEST_CASE("a cast rounds to the nearest number of the type, ties to even") {
  constexpr DType kTypes[] = {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16};
  for (const std::int64_t n : kOddSizes)
    for (const DType from : kTypes)
      for (const DType to : kTypes) {
        HostTensor x = random_tensor({n}, static_cast<std::uint64_t>(n), -300.0, 300.0, from);
        // `set` rounds to float32 on the way to narrower types.
        for (std::size_t i = 0; i < x.size(); ++i) x.set(i, static_cast<float>(x[i]));
        // Ties, a number above the largest, denormal ones.
        const double odd[] = {1.00390625, -1.01171875, -0.0, 0x1p-133,  0x1p-24,   -0x3p-25,
                              1e39,       65520.0,     kNaN, kInfinity, -kInfinity};
        for (std::size_t i = 0; i < std::size(odd) && n > 20; ++i)
          x.set(static_cast<std::size_t>(n) - 1 - i, odd[i]);
        HostTensor expected(TensorSpec{{n}, to});
        for (std::size_t i = 0; i < x.size(); ++i) expected.set(i, x[i]);
        CAPTURE(std::string(short_name(from)));
        CAPTURE(std::string(short_name(to)));
        check_kernels(ops::Cast{to}, {x}, [&](const std::vector<HostTensor>& out) {
          std::size_t wrong = 0;
          for (std::size_t i = 0; i < x.size(); ++i) {
            const bool same =
                out[0][i] == expected[i] && std::signbit(out[0][i]) == std::signbit(expected[i]);
            wrong += !same && !(std::isnan(out[0][i]) && std::isnan(expected[i]));
          }
          CHECK(wrong == 0);
        });
      }
  // Once, not to float32 first: that would be a tie.
  HostTensor above(Shape{2}, {1.0 + 0x1p-8 + 0x1p-40, 1.0 + 0x1p-11 + 0x1p-40}, DType::kFloat64);
  for (const auto& [to, index, expected] :
       {std::tuple{DType::kBFloat16, std::size_t{0}, 1.0 + 0x1p-7},
        {DType::kFloat16, std::size_t{1}, 1.0 + 0x1p-10}})
    check_kernels(ops::Cast{to}, {above}, [&, i = index, wanted = expected](const auto& out) {
      CHECK(out[0][i] == wanted);
    });
}
