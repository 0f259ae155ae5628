#include <doctest/doctest.h>

#include "backends/test_bfloat16_support.h"
#include "backends/test_conv2d_measure_support.h"

// Moments and sums that the kernels of bfloat16 take of their results: of what they hold, rounded.
using namespace pycnn;
using namespace pycnn::testing;

namespace {

// Every variant: the result is that of a kernel which does not measure, the moments are those of
// the result. (each_bfloat16_run compares the bits of all ways to run it.)
void check_moments(const ops::Conv2d& op, const std::vector<Values>& inputs) {
  const ops::Conv2d both = measured(op);
  CHECK(bfloat16_variants(both, inputs) == bfloat16_variants(op, inputs));
  each_bfloat16_run(both, inputs, [&](const std::string& variant, const auto& found) {
    REQUIRE(found.size() == 2);
    CHECK(same_bits(found[0], run_bfloat16(op, inputs, {.variant = variant})[0]));
    CHECK(are_moments_of(found[1], found[0], 2));
  });
}

void check_sums(const ops::Conv2dGradInput& op, const std::vector<Values>& inputs,
                const NormSums& norm, std::mt19937& random) {
  const Before before(
      {inputs[0].shape[0], op.input_size[0], op.input_size[1], inputs[1].shape[3] * op.groups},
      random);
  ops::Conv2dGradInput both = op;
  both.sums = norm;
  std::vector<Values> more = inputs;
  for (const Values& value : {before.x, before.mean, before.factor, before.offset})
    more.push_back(value);
  CHECK(bfloat16_variants(both, more) == bfloat16_variants(op, inputs));
  each_bfloat16_run(both, more, [&](const std::string& variant, const auto& found) {
    REQUIRE(found.size() == 2);
    CHECK(same_bits(found[0], run_bfloat16(op, inputs, {.variant = variant})[0]));
    CHECK(are_sums_of(found[1], found[0], before, norm));
  });
}

// Beside the large ones of float32: weights that are read as they are, both ways; tiles of 5x5
// windows; groups of slices; pixels without a tap.
std::vector<Case> large_cases() {
  std::vector<Case> cases = kLargeCases;
  for (const Case& c : {
           Case{.n = 4, .h = 7, .w = 7, .ic = 512, .oc = 1056, .kh = 1, .kw = 1},
           Case{.n = 2, .h = 3, .w = 3, .ic = 1056, .oc = 1024, .kh = 1, .kw = 1},
           Case{.n = 2,
           .h = 21,
           .w = 18,
           .ic = 40,
           .oc = 70,
           .kh = 5,
           .kw = 5,
           .padding = {2, 2, 2, 2}},
           Case{.n = 5, .h = 9, .w = 9, .ic = 96, .oc = 96, .padding = {1, 1, 1, 1}, .groups = 6},
           Case{.n = 3, .h = 9, .w = 11, .ic = 64, .oc = 80, .kh = 1, .kw = 1, .stride = {3, 2}},
       })
    cases.push_back(c);
  return cases;
}

ops::Conv2dGradInput finished(const Case& c, bool residual, bool relu) {
  ops::Conv2dGradInput op = c.grad_input();
  op.finish = {residual, relu};
  return op;
}

}  // namespace

TEST_CASE("conv2d in bfloat16: every variant measures what it stores") {
  std::mt19937 random(30);
  std::vector<Case> cases = nasty_cases();
  for (const Case& c : large_cases()) cases.push_back(c);
  for (unsigned seed = 240; seed < 250; ++seed) {
    std::mt19937 own(seed);
    cases.push_back(random_case(own));
  }
  for (const Case& c : cases) {
    CAPTURE(c.text());
    check_moments(c.forward(), {reals(c.input(), random), reals(c.weight(), random)});
  }
}

TEST_CASE("conv2d in bfloat16: what is measured went through the epilogue") {
  std::mt19937 random(31);
  for (const Case& c : {kLargeCases[0], kLargeCases[4], kLargeCases[7], kLargeCases[8]}) {
    CAPTURE(c.text());
    ops::Conv2d op = c.forward();
    op.epilogue = {.residual = true, .activation = ActivationKind::kRelu};
    check_moments(op, {reals(c.input(), random), reals(c.weight(), random), reals({c.oc}, random),
                       reals(c.output(), random)});
  }
}

TEST_CASE("conv2d in bfloat16: every variant sums up what a batch norm asks for") {
  std::mt19937 random(32);
  std::vector<Case> cases = nasty_cases();
  for (Case c : large_cases()) {
    // What reads 64 channels at a time forward writes them backward.
    if (c.kh == 1 && c.ic >= 128 && c.ic < 1000) std::swap(c.ic, c.oc);
    cases.push_back(c);
  }
  std::size_t next = 0;
  for (const Case& c : cases) {
    CAPTURE(c.text());
    check_sums(c.grad_input(), {reals(c.output(), random), reals(c.weight(), random)},
               kNorms[next++ % 4], random);
  }
}

TEST_CASE("conv2d in bfloat16: sums of a gradient that is finished are those of what is stored") {
  std::mt19937 random(33);
  for (const Case& c : {kLargeCases[0], kLargeCases[4], kLargeCases[6]})
    for (const bool residual : {false, true}) {
      CAPTURE(c.text());
      std::vector<Values> inputs = {reals(c.output(), random), reals(c.weight(), random)};
      if (residual) inputs.push_back(reals(c.input(), random));
      inputs.push_back(whole_numbers(c.input(), random));
      check_sums(finished(c, residual, true), inputs, kNorms[residual ? 1 : 0], random);
    }
}

// Float32's kernels on widened images would measure what is not rounded yet.
TEST_CASE("conv2d in bfloat16: kernels of bfloat16 alone measure") {
  const Case c = kLargeCases[4];
  const std::vector<TensorSpec> inputs = {{c.input(), DType::kBFloat16}, {c.weight()}};
  const std::vector<TensorSpec> outputs = c.forward().infer(inputs);
  const Backend& cpu = cpu_backend();
  Problem problem{inputs, outputs, best_isa(), 1, "conv2d.bfloat16.portable"};
  CHECK(cpu.measures(c.forward(), problem));
  problem.pinned = {}, problem.isa = Isa::kBaseline;
  CHECK_FALSE(cpu.measures(c.forward(), problem));
  const std::vector<TensorSpec> plain = {{c.input()}, {c.weight()}};
  const std::vector<TensorSpec> results = c.forward().infer(plain);
  CHECK(cpu.measures(c.forward(), {plain, results, Isa::kBaseline, 1, {}}));
}
