#include <doctest/doctest.h>

#include <sstream>

#include "backends/test_conv2d_support.h"

using namespace pycnn;
using namespace pycnn::testing;

// That the arithmetic is right within its rounding is shown in tests/ops/test_winograd.py.
namespace {

struct Case {
  std::int64_t n = 1, h = 9, w = 10, ic = 16, oc = 16;
  Padding padding = {1, 1, 1, 1};
  std::int64_t window = 3, groups = 1;

  Shape input() const { return {n, h, w, ic}; }
  Shape weight() const { return {oc, window, window, ic / groups}; }
  Shape output() const {
    return {n, h + padding.top + padding.bottom - window + 1,
            w + padding.left + padding.right - window + 1, oc};
  }
  ops::Conv2d forward() const {
    ops::Conv2d op;
    op.padding = padding, op.groups = groups;
    return op;
  }
  ops::Conv2dGradInput grad_input() const {
    return {.padding = padding, .groups = groups, .input_size = {h, w}};
  }
  std::string text() const {
    std::ostringstream out;
    out << to_string(input()) << " to " << to_string(output()) << " padding " << padding.top << ","
        << padding.bottom << "," << padding.left << "," << padding.right << " window " << window
        << " groups " << groups;
    return out.str();
  }
};

// Ones, minus ones and more zeros.
Values few(const Shape& shape, std::mt19937& random) {
  Values values = whole_numbers(shape, random, 1);
  for (int i = 0; i < 2; ++i) {
    const Values kept = whole_numbers(shape, random, 1);
    for (std::size_t j = 0; j < kept.data.size(); ++j) values.data[j] *= kept.data[j];
  }
  return values;
}

// Tiles of 4 divide weights by up to 24, twice: multiples of 36 become multiples of 1/16.
Values times_36(Values values) {
  for (float& x : values.data) x *= 36;
  return values;
}

bool is_winograd(const std::string& variant) {
  return variant.find(".winograd.") != std::string::npos;
}

// The shapes are small enough that no sum reaches 2^20, of whatever signs.
void check_all_exact(const Case& c, std::mt19937& random) {
  const Values input = few(c.input(), random), weight = times_36(few(c.weight(), random));
  const Values bias = whole_numbers({c.oc}, random), grad = few(c.output(), random);
  for (const std::string& name : fast_variants(c.forward(), {input, weight}))
    if (is_winograd(name)) {
      check_exact(c.forward(), {input, weight, bias}, Winograd::kTaken);
      check_exact(c.grad_input(), {grad, weight}, Winograd::kTaken);
      return;
    }
  if (c.groups == 1 || c.ic / c.groups <= widest_winograd_group())
    FAIL("no kernel accepts " << c.text());
}

}  // namespace

TEST_CASE("winograd: every variant has the reference's bits on whole numbers, chosen shapes") {
  std::mt19937 random(1);
  const std::vector<Case> cases = {
      {},
      {.n = 0},
      {.n = 3, .h = 4, .w = 4},
      {.n = 2, .h = 6, .w = 7, .ic = 17, .oc = 35},
      {.h = 8, .w = 21, .ic = 24, .oc = 70},  // weights are packed in several stretches
      {.h = 9, .w = 9, .ic = 70, .oc = 16},
      {.n = 2, .h = 12, .w = 13, .ic = 18, .oc = 33, .padding = {0, 0, 0, 0}},
      {.h = 10, .w = 11, .ic = 16, .oc = 17, .padding = {2, 2, 2, 2}},
      {.h = 10, .w = 9, .ic = 33, .oc = 16, .padding = {0, 1, 2, 3}},
      {.h = 9, .w = 12, .padding = {4, 3, 3, 4}},
      {.h = 6, .w = 6, .ic = 16, .oc = 257},  // output channels are shared out
      {.h = 14, .w = 14, .ic = 40, .oc = 120},
      {.n = 3, .h = 30, .w = 34, .ic = 32, .oc = 32},  // more chunks of tiles than cores
      {.n = 2, .h = 7, .w = 8, .ic = 17, .oc = 35, .padding = {2, 2, 2, 2}, .window = 5},
      {.h = 8, .w = 9, .padding = {4, 0, 1, 3}, .window = 5},
      {.n = 3, .h = 13, .w = 17, .ic = 24, .oc = 40, .padding = {0, 0, 0, 0}, .window = 5},
      {.n = 2, .h = 11, .ic = 24, .oc = 24, .groups = 3},
      {.n = 0, .ic = 32, .oc = 32, .groups = 2},
      {.n = 3, .h = 4, .w = 4, .ic = 32, .oc = 32, .groups = 2},     // tiles of several images
      {.n = 2, .h = 7, .w = 8, .ic = 160, .oc = 160, .groups = 10},  // slices of groups
      {.h = 10, .w = 9, .ic = 64, .oc = 64, .padding = {0, 1, 2, 3}, .groups = 2},
      {.h = 6, .w = 69, .ic = 16, .oc = 16, .padding = {2, 2, 2, 2}, .groups = 2},  // strips of
                                                                                    // rows
      {.n = 2, .h = 8, .w = 13, .ic = 128, .oc = 128, .padding = {0, 0, 0, 0}, .groups = 2},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text());
    check_all_exact(c, random);
  }
}

TEST_CASE("winograd: every variant has the reference's bits on whole numbers, random shapes") {
  for (unsigned seed = 0; seed < 16; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    auto draw = [&](int low, int high) {
      return static_cast<std::int64_t>(std::uniform_int_distribution<int>(low, high)(random));
    };
    Case c{.n = draw(1, 3), .h = draw(6, 19), .w = draw(6, 19), .ic = draw(16, 50)};
    c.oc = draw(16, 70);
    c.padding = {draw(0, 3), draw(0, 3), draw(0, 3), draw(0, 3)};
    if (seed % 3 == 2) c.window = 5, c.h += 2, c.w += 2;
    if (seed % 3 == 1) c.groups = draw(2, 5), c.ic = c.oc = c.groups * (8 << draw(0, 3));
    CAPTURE(c.text());
    check_all_exact(c, random);
  }
}

TEST_CASE("winograd: the epilogue equals separate steps, also in place and at the edge of memory") {
  std::mt19937 random(2);
  for (const Case& c : {Case{.h = 7, .w = 8, .oc = 33}, Case{.h = 9, .w = 11, .oc = 40},
                        Case{.h = 12, .w = 12, .oc = 32},
                        Case{.h = 6, .w = 7, .oc = 33, .padding = {2, 2, 2, 2}, .window = 5},
                        Case{.h = 9, .w = 10, .ic = 48, .oc = 48, .groups = 3}}) {
    CAPTURE(c.text());
    const Values input = reals(c.input(), random), weight = reals(c.weight(), random);
    const Values bias = reals({c.oc}, random), residual = reals(c.output(), random);
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
          for (const Guard guard : {Guard::kAfter, Guard::kBefore})
            for (const bool in_place : {false, true})
              if (with_residual || !in_place)
                CHECK(same_bits(
                    run<float>(fused, inputs,
                               {.isa = isa, .threads = 2, .guard = guard, .in_place = in_place})[0],
                    expected));
        }
    }
  }
}

TEST_CASE("winograd: one problem has one plan, and the option turns it off") {
  Case c;
  SUBCASE("plain") {}
  SUBCASE("in groups") { c.ic = c.oc = 32, c.groups = 2; }
  const std::vector<TensorSpec> inputs = {{c.input(), DType::kFloat32},
                                          {c.weight(), DType::kFloat32}};
  const std::vector<TensorSpec> outputs = {{c.output(), DType::kFloat32}};
  int ran = 0;
  for (const std::string& variant : cpu::variants(c.forward())) {
    if (!is_winograd(variant)) continue;
    CAPTURE(variant);
    Problem problem{inputs, outputs, best_isa(), 2, variant};
    try {
      const Kernel first = cpu::select(c.forward(), problem).kernel;
      const Kernel second = cpu::select(c.forward(), problem).kernel;
      CHECK(first.plan == second.plan);
      CHECK(first.packed.bytes == second.packed.bytes);
    } catch (const UnsupportedError&) {  // another machine's
      continue;
    }
    problem.winograd = false;
    CHECK_THROWS_AS(cpu::select(c.forward(), problem), UnsupportedError);
    ++ran;
  }
  CHECK(ran > 0);
}

// Told from the transformed weights, which have as many points as a tile.
TEST_CASE(
    "winograd: small images take tiles of 2 forward, and backward those with fewer products") {
  const auto points = [](const auto& op, const Case& c, const Shape& from, const Shape& to) {
    const std::vector<TensorSpec> inputs = {{from, DType::kFloat32}, {c.weight(), DType::kFloat32}};
    const std::vector<TensorSpec> outputs = {{to, DType::kFloat32}};
    const auto selected = cpu::select(op, Problem{inputs, outputs, best_isa(), 2, {}});
    CHECK(is_winograd(selected.kernel.variant));
    return selected.kernel.packed.bytes / (sizeof(float) * std::size_t(c.ic * c.oc));
  };
  for (const auto& [side, forward, backward] : std::vector<std::array<std::size_t, 3>>{
           {4, 16, 36}, {5, 16, 16}, {6, 16, 16}, {7, 16, 36}, {8, 36, 36}, {9, 36, 36}}) {
    CAPTURE(side);
    const auto at = static_cast<std::int64_t>(side);
    const Case c = {.n = 3, .h = at, .w = at, .ic = 64, .oc = 64};
    CHECK(points(c.forward(), c, c.input(), c.output()) == forward);
    CHECK(points(c.grad_input(), c, c.output(), c.input()) == backward);
  }
}
