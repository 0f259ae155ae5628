#include <doctest/doctest.h>

#include <sstream>

#include "backends/test_conv2d_support.h"

using namespace pycnn;
using namespace pycnn::testing;

namespace {

struct Case {
  std::int64_t n = 2, h = 6, w = 7, ic = 3, oc = 5, kh = 3, kw = 3;
  Pair stride = {1, 1};
  Padding padding = {};
  Pair dilation = {1, 1};
  std::int64_t groups = 1;

  Shape input() const { return {n, h, w, ic}; }
  Shape weight() const { return {oc, kh, kw, ic / groups}; }
  Shape output() const {
    return {n, (h + padding.top + padding.bottom - (kh - 1) * dilation[0] - 1) / stride[0] + 1,
            (w + padding.left + padding.right - (kw - 1) * dilation[1] - 1) / stride[1] + 1, oc};
  }
  bool fits() const {
    return h + padding.top + padding.bottom > (kh - 1) * dilation[0] &&
           w + padding.left + padding.right > (kw - 1) * dilation[1];
  }
  ops::Conv2d forward() const {
    ops::Conv2d op;
    op.stride = stride, op.padding = padding, op.dilation = dilation, op.groups = groups;
    return op;
  }
  ops::Conv2dGradInput grad_input() const {
    return {.stride = stride,
            .padding = padding,
            .dilation = dilation,
            .groups = groups,
            .input_size = {h, w}};
  }
  ops::Conv2dGradWeight grad_weight(bool bias) const {
    return {.stride = stride,
            .padding = padding,
            .dilation = dilation,
            .groups = groups,
            .kernel_size = {kh, kw},
            .bias = bias};
  }
  std::string text() const {
    std::ostringstream out;
    out << "input " << to_string(input()) << " weight " << to_string(weight()) << " stride "
        << stride[0] << "," << stride[1] << " padding " << padding.top << "," << padding.bottom
        << "," << padding.left << "," << padding.right << " dilation " << dilation[0] << ","
        << dilation[1] << " groups " << groups;
    return out.str();
  }
};

std::vector<Case> nasty_cases() {
  std::vector<Case> cases;
  const std::int64_t channels[] = {1, 2, 3, 15, 16, 17, 31, 33, 64, 65};
  for (std::size_t i = 0; i < std::size(channels); ++i) {
    cases.push_back({.ic = channels[i], .oc = channels[(i * 3 + 1) % 10], .padding = {1, 1, 1, 1}});
    cases.push_back({.ic = channels[(i * 7 + 2) % 10], .oc = channels[i], .kh = 1, .kw = 1});
    cases.push_back(
        {.ic = channels[i], .oc = channels[i], .stride = {2, 2}, .padding = {0, 1, 1, 0}});
  }
  for (const std::int64_t width : {1, 15, 16, 17, 29})
    cases.push_back({.h = 3, .w = width, .ic = 2, .oc = 33, .padding = {1, 1, 1, 1}});
  const std::vector<Case> more = {
      {.n = 1, .h = 1, .w = 1, .ic = 17, .oc = 16, .padding = {1, 1, 1, 1}},
      {.n = 3, .h = 1, .w = 1, .ic = 5, .oc = 40, .kh = 7, .kw = 7, .padding = {3, 3, 3, 3}},
      {.n = 3, .h = 1, .w = 9, .ic = 4, .oc = 7, .kh = 1, .kw = 3, .padding = {0, 0, 1, 1}},
      {.n = 3, .h = 9, .w = 1, .ic = 4, .oc = 7, .kh = 3, .kw = 1, .padding = {1, 1, 0, 0}},
      {.n = 5, .h = 4, .w = 5, .ic = 6, .oc = 35, .kh = 4, .kw = 5},  // kernel = image
      {.n = 2, .h = 3, .w = 3, .ic = 2, .oc = 3, .kh = 5, .kw = 5, .padding = {1, 1, 2, 1}},
      {.n = 2, .h = 11, .w = 12, .ic = 3, .oc = 18, .kh = 2, .kw = 2, .stride = {4, 5}},
      {.n = 2, .h = 60, .w = 55, .ic = 2, .oc = 3, .kh = 3, .kw = 2, .stride = {50, 50}},
      {.n = 2, .h = 4, .w = 60, .ic = 2, .oc = 3, .stride = {50, 1}, .padding = {1, 1, 0, 0}},
      {.n = 2, .h = 12, .w = 13, .ic = 5, .oc = 9, .padding = {2, 2, 2, 2}, .dilation = {2, 2}},
      {.n = 2, .h = 12, .w = 13, .ic = 33, .oc = 9, .padding = {3, 3, 3, 3}, .dilation = {3, 3}},
      {.n = 2,
       .h = 12,
       .w = 13,
       .ic = 3,
       .oc = 4,
       .stride = {3, 2},
       .padding = {1, 2, 3, 0},
       .dilation = {2, 3}},
      {.n = 2, .h = 20, .w = 20, .ic = 2, .oc = 4, .stride = {2, 2}, .dilation = {9, 2}},
      {.n = 2, .h = 7, .w = 8, .ic = 3, .oc = 4, .kh = 2, .kw = 3, .padding = {4, 0, 1, 3}},
      {.n = 2, .h = 5, .w = 5, .ic = 3, .oc = 4, .kh = 2, .kw = 2, .padding = {5, 4, 3, 6}},
      {.n = 2, .h = 7, .w = 7, .ic = 17, .oc = 17, .padding = {1, 1, 1, 1}, .groups = 17},
      {.n = 2,
       .h = 7,
       .w = 7,
       .ic = 17,
       .oc = 34,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 17},
      {.n = 2, .h = 7, .w = 7, .ic = 64, .oc = 64, .padding = {1, 1, 1, 1}, .groups = 64},
      {.n = 2, .h = 5, .w = 7, .ic = 128, .oc = 128, .padding = {1, 1, 1, 1}, .groups = 32},
      {.n = 2,
       .h = 5,
       .w = 6,
       .ic = 32,
       .oc = 64,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 32},
      {.n = 2, .h = 5, .w = 6, .ic = 66, .oc = 6, .kh = 1, .kw = 1, .groups = 2},
      {.n = 2, .h = 4, .w = 27, .ic = 20, .oc = 20, .padding = {1, 1, 1, 1}, .groups = 5},
      {.n = 3, .h = 5, .w = 13, .ic = 6, .oc = 6, .kw = 5, .padding = {0, 2, 2, 1}, .groups = 3},
      {.n = 2, .h = 8, .w = 25, .ic = 40, .oc = 40, .padding = {1, 1, 1, 1}, .groups = 5},
      {.n = 2,
       .h = 9,
       .w = 14,
       .ic = 40,
       .oc = 40,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 5},
      {.n = 2,
       .h = 9,
       .w = 14,
       .ic = 24,
       .oc = 24,
       .stride = {1, 3},
       .padding = {1, 1, 1, 1},
       .groups = 3},
      {.n = 2,
       .h = 8,
       .w = 9,
       .ic = 15,
       .oc = 36,
       .kh = 2,
       .kw = 4,
       .padding = {1, 0, 2, 1},
       .groups = 3},
      {.n = 2,
       .h = 8,
       .w = 9,
       .ic = 40,
       .oc = 24,
       .kh = 5,
       .kw = 5,
       .padding = {2, 2, 2, 2},
       .groups = 2},
      {.n = 1,
       .h = 9,
       .w = 11,
       .ic = 48,
       .oc = 48,
       .padding = {2, 2, 2, 2},
       .dilation = {2, 2},
       .groups = 3},
      {.n = 1, .h = 7, .w = 7, .ic = 66, .oc = 66, .padding = {1, 1, 1, 1}, .groups = 2},
      {.n = 1,
       .h = 14,
       .w = 14,
       .ic = 64,
       .oc = 64,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 2},
      {.n = 1, .h = 9, .w = 9, .ic = 32, .oc = 80, .padding = {1, 1, 1, 1}, .groups = 2},
      {.n = 1, .h = 2, .w = 3, .ic = 1000, .oc = 3, .padding = {1, 1, 1, 1}},
      {.n = 1, .h = 1, .w = 3, .ic = 2049, .oc = 2, .kh = 1, .kw = 1},
      {.n = 2, .h = 2, .w = 3, .ic = 3, .oc = 1000, .padding = {1, 1, 1, 1}},
      {.n = 1, .h = 3, .w = 1, .ic = 2, .oc = 2049, .kh = 1, .kw = 1},
      {.n = 1, .h = 3, .w = 3, .ic = 1000, .oc = 1000, .padding = {1, 1, 1, 1}, .groups = 1000},
      {.n = 0, .padding = {1, 1, 1, 1}},
      {.n = 1, .h = 28, .w = 28, .ic = 1, .oc = 6, .kh = 5, .kw = 5, .padding = {2, 2, 2, 2}},
      {.n = 3, .h = 14, .w = 14, .ic = 6, .oc = 16, .kh = 5, .kw = 5},
      {.n = 2,
       .h = 18,
       .w = 18,
       .ic = 3,
       .oc = 64,
       .kh = 7,
       .kw = 7,
       .stride = {2, 2},
       .padding = {3, 3, 3, 3}},
      {.n = 5, .h = 7, .w = 7, .ic = 64, .oc = 96, .kh = 1, .kw = 1},
      {.n = 2, .h = 9, .w = 9, .ic = 40, .oc = 33, .kh = 1, .kw = 1, .stride = {2, 2}},
      {.n = 1, .h = 40, .w = 40, .ic = 64, .oc = 64, .padding = {1, 1, 1, 1}},
  };
  cases.insert(cases.end(), more.begin(), more.end());
  return cases;
}

Case random_case(std::mt19937& random) {
  auto draw = [&](int low, int high) {
    return static_cast<std::int64_t>(std::uniform_int_distribution<int>(low, high)(random));
  };
  Case c;
  do {
    c.groups = draw(0, 2) == 0 ? draw(1, 6) : 1;
    c.n = draw(1, 4), c.h = draw(1, 20), c.w = draw(1, 34);
    c.ic = c.groups * draw(1, 20), c.oc = c.groups * draw(1, 40);
    c.kh = draw(1, 5), c.kw = draw(1, 5);
    c.stride = {draw(1, 3), draw(1, 3)};
    c.dilation = {draw(1, 2), draw(1, 3)};
    c.padding = {draw(0, 3), draw(0, 3), draw(0, 3), draw(0, 3)};
  } while (!c.fits() || c.n * c.h * c.w * c.ic * c.oc * c.kh * c.kw / c.groups > 3'000'000);
  return c;
}

void check_all_exact(const Case& c, std::mt19937& random) {
  const Values input = whole_numbers(c.input(), random), weight = whole_numbers(c.weight(), random);
  const Values bias = whole_numbers({c.oc}, random), grad = whole_numbers(c.output(), random);
  check_exact(c.forward(), {input, weight, bias});
  check_exact(c.grad_input(), {grad, weight});
  check_exact(c.grad_weight(true), {input, grad});
}

}  // namespace

TEST_CASE("conv2d: every variant has the reference's bits on whole numbers, nasty shapes") {
  std::mt19937 random(1);
  for (const Case& c : nasty_cases()) {
    CAPTURE(c.text());
    check_all_exact(c, random);
  }
}

TEST_CASE("conv2d: every variant has the reference's bits on whole numbers, random shapes") {
  for (unsigned seed = 100; seed < 140; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const Case c = random_case(random);
    CAPTURE(c.text());
    check_all_exact(c, random);
  }
}

TEST_CASE("conv2d: rounding errors stay within the bound for the length of the sums") {
  std::mt19937 random(2);
  for (const Case& c : nasty_cases()) {
    CAPTURE(c.text());
    const Values input = reals(c.input(), random), weight = reals(c.weight(), random);
    const Values bias = reals({c.oc}, random), grad = reals(c.output(), random);
    const Shape out = c.output();
    const auto taps = static_cast<double>(c.kh * c.kw);
    check_condition(c.forward(), {input, weight, bias},
                    taps * static_cast<double>(c.ic / c.groups) + 1);
    check_condition(c.grad_input(), {grad, weight}, taps * static_cast<double>(c.oc / c.groups));
    check_condition(c.grad_weight(true), {input, grad},
                    static_cast<double>(out[0] * out[1] * out[2]));
  }
}

TEST_CASE("conv2d: an image's result does not depend on its batch") {
  std::mt19937 random(3);
  for (Case c :
       {Case{.n = 8, .h = 14, .w = 14, .ic = 6, .oc = 16, .kh = 5, .kw = 5},
        Case{.n = 8, .h = 7, .w = 7, .ic = 33, .oc = 40, .padding = {1, 1, 1, 1}},
        Case{.n = 8, .h = 9, .w = 14, .ic = 16, .oc = 33, .padding = {1, 1, 1, 1}},
        Case{.n = 8, .h = 3, .w = 3, .ic = 16, .oc = 70, .kh = 1, .kw = 1},
        Case{.n = 8, .h = 4, .w = 4, .ic = 9, .oc = 70, .kh = 4, .kw = 4},
        Case{.n = 8, .h = 28, .w = 28, .ic = 1, .oc = 6, .kh = 5, .kw = 5, .padding = {2, 2, 2, 2}},
        Case{.n = 8, .h = 9, .w = 9, .ic = 32, .oc = 32, .padding = {1, 1, 1, 1}, .groups = 32},
        Case{.n = 8, .h = 9, .w = 9, .ic = 32, .oc = 32, .padding = {1, 1, 1, 1}, .groups = 8},
        Case{.n = 8, .h = 7, .w = 7, .ic = 32, .oc = 32, .padding = {1, 1, 1, 1}, .groups = 2}}) {
    CAPTURE(c.text());
    const Values input = reals(c.input(), random), weight = reals(c.weight(), random);
    const Values grad = reals(c.output(), random);
    auto image_of = [](const Values& batch, std::size_t i) {
      Values one = batch;
      one.shape[0] = 1;
      const std::size_t size = count_of(one.shape);
      one.data.assign(batch.data.begin() + static_cast<std::ptrdiff_t>(i * size),
                      batch.data.begin() + static_cast<std::ptrdiff_t>((i + 1) * size));
      return one;
    };
    auto check = [&](const auto& op, const Values& batch) {
      for (const std::string& variant : fast_variants(op, {batch, weight})) {
        CAPTURE(variant);
        const auto all = run<float>(op, {batch, weight}, {.variant = variant})[0];
        std::vector<float> singles;
        for (std::size_t i = 0; i < 8; ++i) {
          const auto one = run<float>(op, {image_of(batch, i), weight}, {.variant = variant})[0];
          singles.insert(singles.end(), one.begin(), one.end());
        }
        CHECK(same_bits(all, singles));
      }
    };
    check(c.forward(), input);
    check(c.grad_input(), grad);
  }
}

TEST_CASE("conv2d: without bias, and gradient without bias") {
  std::mt19937 random(4);
  const Case c{.ic = 5, .oc = 19, .padding = {1, 0, 0, 1}};
  check_exact(c.forward(), {whole_numbers(c.input(), random), whole_numbers(c.weight(), random)});
  check_exact(c.grad_weight(false),
              {whole_numbers(c.input(), random), whole_numbers(c.output(), random)});
}

TEST_CASE("conv2d: the epilogue equals separate steps") {
  std::mt19937 random(5);
  for (const Case& c :
       {Case{.h = 9, .w = 8, .ic = 4, .oc = 6, .padding = {1, 1, 1, 1}},
        Case{.h = 9, .w = 8, .ic = 4, .oc = 16, .padding = {1, 1, 1, 1}},
        Case{.h = 9, .w = 8, .ic = 4, .oc = 33, .padding = {1, 1, 1, 1}},
        Case{.h = 9, .w = 8, .ic = 4, .oc = 64, .padding = {1, 1, 1, 1}},
        Case{.h = 9, .w = 8, .ic = 12, .oc = 12, .padding = {1, 1, 1, 1}, .groups = 3},
        Case{.h = 9, .w = 8, .ic = 6, .oc = 20, .padding = {1, 1, 1, 1}, .groups = 2}}) {
    const std::int64_t oc = c.oc;
    const Values input = reals(c.input(), random), weight = reals(c.weight(), random);
    const Values bias = reals({oc}, random), residual = reals(c.output(), random);
    for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
      if (isa > best_isa()) continue;
      const auto plain = run<float>(c.forward(), {input, weight, bias}, {.isa = isa})[0];
      for (const bool with_residual : {false, true})
        for (const auto kind :
             {ActivationKind::kIdentity, ActivationKind::kRelu, ActivationKind::kRelu6,
              ActivationKind::kLeakyRelu, ActivationKind::kSigmoid, ActivationKind::kTanh,
              ActivationKind::kScaledTanh}) {
          Values sum{c.output(), plain};
          if (with_residual)
            for (std::size_t i = 0; i < sum.data.size(); ++i) sum.data[i] += residual.data[i];
          const auto expected = kind == ActivationKind::kIdentity
                                    ? sum.data
                                    : run<float>(ops::Activation{.kind = kind, .slope = 0.125},
                                                 {sum}, {.isa = isa})[0];
          ops::Conv2d fused = c.forward();
          fused.epilogue = {.residual = with_residual, .activation = kind, .slope = 0.125};
          std::vector<Values> inputs = {input, weight, bias};
          if (with_residual) inputs.push_back(residual);
          CHECK(same_bits(run<float>(fused, inputs, {.isa = isa})[0], expected));
          if (with_residual)
            CHECK(
                same_bits(run<float>(fused, inputs, {.isa = isa, .in_place = true})[0], expected));
          const auto reference = run<float>(fused, inputs, {.variant = "reference"})[0];
          for (std::size_t i = 0; i < reference.size(); ++i)
            CHECK(reference[i] == doctest::Approx(expected[i]).epsilon(1e-4));
        }
    }
  }
}

TEST_CASE("conv2d: NaN reaches exactly the outputs that see it") {
  std::mt19937 random(6);
  for (const Case& c :
       {Case{.n = 1, .h = 8, .w = 9, .ic = 3, .oc = 20, .padding = {1, 1, 1, 1}},
        Case{.n = 1, .h = 8, .w = 9, .ic = 20, .oc = 20, .padding = {1, 1, 1, 1}, .groups = 5},
        Case{.n = 1, .h = 8, .w = 9, .ic = 16, .oc = 24, .padding = {1, 1, 1, 1}, .groups = 2}}) {
    CAPTURE(c.text());
    Values input = reals(c.input(), random);
    const Values weight = reals(c.weight(), random);
    input.data[static_cast<std::size_t>((4 * 9 + 5) * c.ic + 1)] = NAN;
    ops::Conv2d op = c.forward();
    op.epilogue.activation = ActivationKind::kRelu;
    for (const std::string& variant : fast_variants(op, {input, weight})) {
      CAPTURE(variant);
      const auto output = run<float>(op, {input, weight}, {.variant = variant})[0];
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(output.size()); ++i) {
        const std::int64_t row = i / c.oc / 9, column = i / c.oc % 9;
        CHECK(std::isnan(output[static_cast<std::size_t>(i)]) ==
              (i % c.oc < c.oc / c.groups && std::abs(row - 4) <= 1 && std::abs(column - 5) <= 1));
      }
    }
  }
}

TEST_CASE("conv2d: float64 has the reference only, and unknown pins are named") {
  const Case c{};
  const std::vector<TensorSpec> inputs = {{c.input(), DType::kFloat64},
                                          {c.weight(), DType::kFloat64}};
  const std::vector<TensorSpec> outputs = {{c.output(), DType::kFloat64}};
  const Selection selection = cpu::select(c.forward(), {inputs, outputs, Isa::kAvx512, 1, ""});
  CHECK(std::string(selection.kernel.variant) == "conv2d.reference");
  CHECK(selection.refused.size() + 1 == cpu::variants(c.forward()).size());
  CHECK_THROWS_AS(cpu::select(c.forward(), {inputs, outputs, Isa::kAvx512, 1, "conv2d.fast"}),
                  ArgumentError);
}
