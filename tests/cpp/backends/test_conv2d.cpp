#include <doctest/doctest.h>

#include "backends/test_conv2d_cases.h"
#include "backends/test_conv2d_support.h"

using namespace pycnn;
using namespace pycnn::testing;

namespace {

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

TEST_CASE("conv2d: sums per thread have the reference's bits on whole numbers") {
  std::mt19937 random(11);
  const std::vector<Case> nasty = nasty_cases();
  std::vector<Case> cases;
  for (std::size_t i = 0; i < nasty.size(); i += 4) cases.push_back(nasty[i]);
  // Enough work for more than one part, or more than one share of the channels.
  cases.push_back({.n = 5, .h = 17, .w = 19, .ic = 17, .oc = 33, .padding = {1, 1, 1, 1}});
  cases.push_back({.n = 3, .h = 7, .w = 9, .ic = 67, .oc = 130, .padding = {1, 0, 1, 1}});
  cases.push_back({.n = 2, .h = 60, .w = 61, .ic = 3, .oc = 40, .stride = {2, 2}});
  for (const Case& c : cases) {
    CAPTURE(c.text());
    const Values input = whole_numbers(c.input(), random), grad = whole_numbers(c.output(), random);
    for (const bool bias : {false, true})
      check_exact_per_thread(c.grad_weight(bias), {input, grad});
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

namespace {

// What a ReLU gave, with everything that it has to be asked for.
Values relu_output(const Shape& shape, std::mt19937& random) {
  Values y = whole_numbers(shape, random, 2);
  for (std::size_t i = 0; i < y.data.size(); ++i) {
    if (i % 11 == 3) y.data[i] = -0.0f;
    if (i % 13 == 5) y.data[i] = NAN;
    if (i % 17 == 7) y.data[i] = 1e-30f;
  }
  return y;
}

}  // namespace

// Every variant, with and without Winograd's: the addition, then the ReLU's gradient, bit by bit,
// wherever the result lies.
TEST_CASE("conv2d: a finished gradient equals separate steps") {
  std::mt19937 random(8);
  for (const Case& c :
       {Case{.n = 3, .h = 5, .w = 7, .ic = 33, .oc = 20, .kh = 1, .kw = 1},
        Case{.n = 2, .h = 9, .w = 8, .ic = 64, .oc = 130, .kh = 1, .kw = 1},
        Case{.n = 3, .h = 5, .w = 7, .ic = 192, .oc = 130, .kh = 1, .kw = 1},    // by Strassen
        Case{.n = 1, .h = 11, .w = 12, .ic = 256, .oc = 256, .kh = 1, .kw = 1},  // by two levels
        Case{.n = 1, .h = 31, .w = 6, .ic = 5, .oc = 4, .padding = {1, 1, 1, 1}},
        Case{.n = 2, .h = 9, .w = 10, .ic = 17, .oc = 6, .stride = {2, 2}, .padding = {1, 1, 1, 1}},
        Case{.n = 1, .h = 11, .w = 9, .ic = 18, .oc = 33, .padding = {1, 1, 1, 1}},
        Case{.n = 2, .h = 6, .w = 5, .ic = 16, .oc = 17, .padding = {1, 0, 1, 2}},
        Case{.n = 1, .h = 9, .w = 7, .ic = 35, .oc = 16, .kh = 5, .kw = 5, .padding = {2, 2, 2, 2}},
        Case{.n = 2, .h = 5, .w = 7, .ic = 66, .oc = 132, .kh = 1, .kw = 1, .groups = 2},
        Case{.n = 2, .h = 7, .w = 8, .ic = 48, .oc = 48, .padding = {1, 1, 1, 1}, .groups = 3},
        Case{.n = 1, .h = 8, .w = 7, .ic = 32, .oc = 32, .padding = {1, 1, 1, 1}, .groups = 4},
        Case{.n = 0, .ic = 33, .oc = 20, .kh = 1, .kw = 1}}) {
    CAPTURE(c.text());
    const Values grad = reals(c.output(), random), weight = reals(c.weight(), random);
    const Values residual = reals(c.input(), random), y = relu_output(c.input(), random);
    for (const bool with_residual : {false, true})
      for (const bool relu : {false, true}) {
        if (!with_residual && !relu) continue;
        ops::Conv2dGradInput op = c.grad_input();
        op.finish = {with_residual, relu};
        std::vector<Values> inputs = {grad, weight};
        if (with_residual) inputs.push_back(residual);
        if (relu) inputs.push_back(y);
        const auto finished = [&](std::vector<float> x) {
          for (std::size_t i = 0; i < x.size(); ++i) {
            if (with_residual) x[i] += residual.data[i];
            if (relu && y.data[i] <= 0.0f) x[i] = 0.0f;
          }
          return x;
        };
        std::vector<std::string> variants = fast_variants(op, inputs);
        CHECK(variants.size() >= 1);
        variants.emplace_back("reference");
        for (const std::string& variant : variants) {
          CAPTURE(variant);
          const auto expected =
              finished(run<float>(c.grad_input(), {grad, weight}, {.variant = variant})[0]);
          for (const Guard guard : {Guard::kAfter, Guard::kBefore})
            for (const int threads : {1, 3}) {
              RunOptions options{.variant = variant, .threads = threads, .guard = guard};
              options.apart = threads == 3;
              CHECK(same_bits(run<float>(op, inputs, options)[0], expected));
              if (variant == "reference") continue;
              options.apart = false, options.in_place = true;
              for (options.earlier = 0; options.earlier + 2 < inputs.size(); ++options.earlier)
                CHECK(same_bits(run<float>(op, inputs, options)[0], expected));
            }
        }
        // And the numbers are those of the float64 reference.
        const auto exact = run<double>(op, inputs, {.variant = "reference"})[0];
        const auto found = run<float>(op, inputs)[0];
        for (std::size_t i = 0; i < exact.size(); ++i)
          CHECK(found[i] == doctest::Approx(exact[i]).epsilon(1e-3).scale(10));
      }
  }
}

TEST_CASE("conv2d: finished gradients have the reference's bits on whole numbers") {
  std::mt19937 random(9);
  std::vector<Case> cases = nasty_cases();
  for (unsigned seed = 0; seed < 10; ++seed) cases.push_back(random_case(random));
  int turn = 0;
  for (const Case& c : cases) {
    if (c.n * c.h * c.w * c.ic * c.oc > 300'000) continue;
    CAPTURE(c.text());
    ops::Conv2dGradInput op = c.grad_input();
    op.finish = {turn % 3 != 0, turn % 3 != 1};
    ++turn;
    std::vector<Values> inputs = {whole_numbers(c.output(), random),
                                  whole_numbers(c.weight(), random)};
    for (std::size_t i = 0; i < std::size_t{op.finish.residual} + op.finish.relu; ++i)
      inputs.push_back(whole_numbers(c.input(), random));
    check_exact(op, inputs);
  }
}

TEST_CASE("conv2d: where a gradient is finished, it is by the kernel that would make it") {
  const auto finishes = [](const Case& c, DType dtype = DType::kFloat32) {
    ops::Conv2dGradInput op = c.grad_input();
    op.finish = {true, true};
    const TensorSpec image{c.input(), dtype};
    const std::vector<TensorSpec> inputs = {
        {c.output(), dtype},
        {c.weight(), dtype == DType::kFloat64 ? dtype : DType::kFloat32},
        image,
        image};
    const std::vector<TensorSpec> outputs = {image};
    return cpu_backend().finishes(op, {inputs, outputs, best_isa(), 1, "", true});
  };
  const Case pointwise{.n = 2, .h = 6, .w = 6, .ic = 64, .oc = 64, .kh = 1, .kw = 1};
  CHECK(finishes(pointwise));
  CHECK(finishes(pointwise, DType::kBFloat16));
  CHECK_FALSE(finishes(pointwise, DType::kFloat64));
  Case c = pointwise;
  c.stride = {2, 2};  // three pixels of four have no tap
  CHECK_FALSE(finishes(c));
  CHECK_FALSE(finishes(c, DType::kBFloat16));
  c.kh = c.kw = 3, c.padding = {1, 1, 1, 1};
  CHECK(finishes(c));
  CHECK(finishes(c, DType::kBFloat16));
  c.stride = {1, 1};  // by Winograd's tiles
  CHECK(finishes(c));
  CHECK(finishes(c, DType::kBFloat16));
  c.groups = 16;  // by rows of groups, which do not
  CHECK_FALSE(finishes(c));
  // A few channels of the input: products are added where they belong, one by one.
  c = {.n = 2,
       .h = 18,
       .w = 18,
       .ic = 3,
       .oc = 64,
       .kh = 7,
       .kw = 7,
       .stride = {2, 2},
       .padding = {3, 3, 3, 3}};
  if (best_isa() > Isa::kBaseline) CHECK_FALSE(finishes(c));
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
  // What is for bfloat16 is not told of.
  const std::vector<std::string> names = cpu::variants(c.forward());
  const auto for_float = std::count_if(names.begin(), names.end(), [](const std::string& name) {
    return name.find(".bfloat16.") == std::string::npos;
  });
  CHECK(static_cast<std::ptrdiff_t>(selection.refused.size()) + 1 == for_float);
  CHECK_THROWS_AS(cpu::select(c.forward(), {inputs, outputs, Isa::kAvx512, 1, "conv2d.fast"}),
                  ArgumentError);
}
