#include <doctest/doctest.h>

#include <array>

#include "backends/test_conv2d_cases.h"
#include "backends/test_conv2d_measure_support.h"

// Moments that kernels take of their results.
using namespace pycnn;
using namespace pycnn::testing;

namespace {

// Every variant: the result is that of a kernel which does not measure, the moments are those of
// the result, and both have the same bits for any thread count, at the edge of memory, and for
// pixels that lie apart. Returns how many variants there are.
int check_moments(const ops::Conv2d& op, const std::vector<Values>& inputs) {
  const ops::Conv2d both = measured(op);
  int ran = 0;
  CHECK(fast_variants(both, inputs) == fast_variants(op, inputs));
  for (const std::string& variant : fast_variants(both, inputs)) {
    CAPTURE(variant);
    ++ran;
    const auto plain = run<float>(op, inputs, {.variant = variant});
    const auto first = run<float>(both, inputs, {.variant = variant});
    REQUIRE(first.size() == 2);
    CHECK(same_bits(first[0], plain[0]));
    CHECK(are_moments_of(first[1], first[0]));
    for (const auto& [threads, guard] :
         {std::pair{2, Guard::kAfter}, {3, Guard::kBefore}, {7, Guard::kAfter}}) {
      CAPTURE(threads);
      RunOptions options{.variant = variant, .threads = threads, .guard = guard};
      options.apart = threads != 2;
      const auto again = run<float>(both, inputs, options);
      CHECK(same_bits(again[0], first[0]));
      CHECK(same_bits(again[1], first[1]));
    }
  }
  return ran;
}

}  // namespace

TEST_CASE("conv2d: every variant measures what it stores, nasty shapes") {
  std::mt19937 random(21);
  for (const Case& c : nasty_cases()) {
    CAPTURE(c.text());
    CHECK(check_moments(c.forward(), {reals(c.input(), random), reals(c.weight(), random)}) >= 1);
  }
}

TEST_CASE("conv2d: every variant measures what it stores, random and large shapes") {
  std::vector<Case> cases = kLargeCases;
  for (unsigned seed = 200; seed < 220; ++seed) {
    std::mt19937 random(seed);
    cases.push_back(random_case(random));
  }
  std::mt19937 random(22);
  for (const Case& c : cases) {
    CAPTURE(c.text());
    const Values input = reals(c.input(), random), weight = reals(c.weight(), random);
    check_moments(c.forward(), {input, weight, reals({c.oc}, random)});
    check_exact(c.forward(), {whole_numbers(c.input(), random), whole_numbers(c.weight(), random)});
  }
}

TEST_CASE("conv2d: what is measured went through the epilogue") {
  std::mt19937 random(23);
  for (const Case& c : {kLargeCases[0], kLargeCases[4], kLargeCases[7], kLargeCases[8]}) {
    CAPTURE(c.text());
    for (const auto kind :
         {ActivationKind::kRelu, ActivationKind::kTanh, ActivationKind::kIdentity}) {
      ops::Conv2d op = c.forward();
      op.epilogue = {.residual = true, .activation = kind, .slope = 0.125};
      check_moments(op, {reals(c.input(), random), reals(c.weight(), random), reals({c.oc}, random),
                         reals(c.output(), random)});
    }
  }
}

// As an image with a black border, behind a large window.
TEST_CASE("conv2d: moments where the first pixels are like no others") {
  std::mt19937 random(25);
  std::vector<Case> cases = kLargeCases;
  cases.push_back({.n = 1, .h = 160, .w = 170, .ic = 3, .oc = 64, .padding = {1, 1, 1, 1}});
  cases.push_back({.n = 2, .h = 130, .w = 90, .ic = 1, .oc = 66, .kh = 1, .kw = 1});
  for (const Case& c : cases) {
    CAPTURE(c.text());
    Values input = reals(c.input(), random), weight = reals(c.weight(), random);
    const std::size_t image = input.data.size() / static_cast<std::size_t>(c.n);
    const auto row = static_cast<std::size_t>(c.w * c.ic);
    for (std::size_t i = 0; i < input.data.size(); ++i)
      input.data[i] = i % image < row ? 0.0f : 1 + 1e-3f * input.data[i];
    for (float& x : weight.data) x = std::abs(x);
    const Values bias{{c.oc}, std::vector<float>(static_cast<std::size_t>(c.oc), 0.5f)};
    const ops::Conv2d both = measured(c.forward());
    for (const std::string& variant : fast_variants(both, {input, weight, bias})) {
      CAPTURE(variant);
      const auto results = run<float>(both, {input, weight, bias}, {.variant = variant});
      CHECK(are_moments_of(results[1], results[0], 4));
    }
  }
}

TEST_CASE("conv2d: moments of large means, of constants and of what is no number") {
  std::mt19937 random(24);
  for (const Case& c : kLargeCases) {
    CAPTURE(c.text());
    Values input = reals(c.input(), random), weight = reals(c.weight(), random);
    // About 1 apart.
    const float scale =
        1.0f / std::sqrt(static_cast<float>(weight.data.size()) / static_cast<float>(c.oc));
    for (float& x : weight.data) x *= scale;
    Values bias{{c.oc}, std::vector<float>(static_cast<std::size_t>(c.oc))};
    for (std::size_t i = 0; i < bias.data.size(); ++i)
      bias.data[i] = std::array{1e6f, -12345.678f, 3e-9f, 0.1f}[i % 4];
    check_moments(c.forward(), {input, weight, bias});

    Values none = weight;
    std::fill(none.data.begin(), none.data.end(), 0.0f);
    const std::size_t channels = bias.data.size();
    for (const std::string& variant : fast_variants(measured(c.forward()), {input, none, bias})) {
      CAPTURE(variant);
      const auto moments =
          run<float>(measured(c.forward()), {input, none, bias}, {.variant = variant})[1];
      for (std::size_t i = 0; i < channels; ++i) {
        CHECK(moments[i] == bias.data[i]);
        CHECK(std::abs(moments[channels + i]) <= 0x1p-46f * std::abs(bias.data[i]));
        CHECK(moments[2 * channels + i] >= 0);
        CHECK(moments[2 * channels + i] <= 0x1p-60f * bias.data[i] * bias.data[i]);
      }
      Values odd = bias;
      odd.data[1] = NAN, odd.data[2] = INFINITY;
      const auto spoiled =
          run<float>(measured(c.forward()), {input, none, odd}, {.variant = variant})[1];
      for (std::size_t i = 0; i < channels; ++i) {
        const bool is_odd = i == 1 || i == 2;
        CHECK(std::isnan(spoiled[2 * channels + i]) == is_odd);
        CHECK(std::isfinite(spoiled[i]) != is_odd);
      }
    }
  }
}

TEST_CASE("conv2d: moments of no images are zeros") {
  std::mt19937 random(25);
  for (const std::int64_t channels : {5, 128}) {
    const Case c{.n = 0, .h = 12, .w = 12, .ic = channels, .oc = channels, .kh = 1, .kw = 1};
    const std::vector<Values> inputs = {reals(c.input(), random), reals(c.weight(), random)};
    for (const std::string& variant : fast_variants(measured(c.forward()), inputs)) {
      CAPTURE(variant);
      const auto results = run<float>(measured(c.forward()), inputs, {.variant = variant});
      for (const float x : results[1]) CHECK(x == 0.0f);
    }
  }
}

namespace {

// As check_moments, of the gradient for the input.
int check_sums(const ops::Conv2dGradInput& op, const std::vector<Values>& inputs,
               const NormSums& norm, std::mt19937& random) {
  const Shape shape = {inputs[0].shape[0], op.input_size[0], op.input_size[1],
                       inputs[1].shape[3] * op.groups};
  const Before before(shape, random);
  ops::Conv2dGradInput both = op;
  both.sums = norm;
  std::vector<Values> more = inputs;
  for (const Values& value : {before.x, before.mean, before.factor, before.offset})
    more.push_back(value);
  int ran = 0;
  for (const std::string& variant : fast_variants(both, more)) {
    CAPTURE(variant);
    ++ran;
    const auto plain = run<float>(op, inputs, {.variant = variant});
    const auto first = run<float>(both, more, {.variant = variant});
    REQUIRE(first.size() == 2);
    CHECK(same_bits(first[0], plain[0]));
    CHECK(are_sums_of(first[1], first[0], before, norm));
    for (const auto& [threads, guard] :
         {std::pair{2, Guard::kAfter}, {3, Guard::kBefore}, {7, Guard::kAfter}}) {
      CAPTURE(threads);
      RunOptions options{.variant = variant, .threads = threads, .guard = guard};
      options.apart = threads != 2;
      const auto again = run<float>(both, more, options);
      CHECK(same_bits(again[0], first[0]));
      CHECK(same_bits(again[1], first[1]));
    }
  }
  return ran;
}

}  // namespace

TEST_CASE("conv2d: every variant sums up what a batch norm asks for, nasty shapes") {
  std::mt19937 random(26);
  std::size_t next = 0;
  for (const Case& c : nasty_cases()) {
    CAPTURE(c.text());
    CHECK(check_sums(c.grad_input(), {reals(c.output(), random), reals(c.weight(), random)},
                     kNorms[next++ % 4], random) >= 1);
  }
}

TEST_CASE("conv2d: every variant sums up what a batch norm asks for, random and large shapes") {
  std::vector<Case> cases = kLargeCases;
  for (unsigned seed = 220; seed < 240; ++seed) {
    std::mt19937 random(seed);
    cases.push_back(random_case(random));
  }
  std::mt19937 random(27);
  std::size_t next = 0;
  for (Case c : cases) {
    // What reads 64 channels at a time forward writes them backward.
    if (c.kh == 1 && c.ic >= 128) std::swap(c.ic, c.oc);
    CAPTURE(c.text());
    check_sums(c.grad_input(), {reals(c.output(), random), reals(c.weight(), random)},
               kNorms[next++ % 4], random);
  }
}

TEST_CASE("conv2d: sums of a gradient that is finished are those of what is stored") {
  std::mt19937 random(28);
  for (const Case& c : {kLargeCases[0], kLargeCases[4], kLargeCases[6]})
    for (const bool residual : {false, true})
      for (const bool relu : {false, true}) {
        CAPTURE(c.text());
        ops::Conv2dGradInput op = c.grad_input();
        op.finish = {residual, relu};
        std::vector<Values> inputs = {reals(c.output(), random), reals(c.weight(), random)};
        if (residual) inputs.push_back(reals(c.input(), random));
        if (relu) inputs.push_back(whole_numbers(c.input(), random));
        CHECK(check_sums(op, inputs, kNorms[0], random) >= 1);
        check_sums(op, inputs, kNorms[1], random);
      }
}

// Their output channels are four parts, all of which are measured, or a share of each.
TEST_CASE("strassen: two levels measure what they store") {
  std::mt19937 random(27);
  for (const Case& c : {Case{.n = 3, .h = 12, .w = 12, .ic = 256, .oc = 256, .kh = 1, .kw = 1},
                        Case{.n = 1, .h = 16, .w = 8, .ic = 256, .oc = 1024, .kh = 1, .kw = 1}}) {
    CAPTURE(c.text());
    const Values weight = reals(c.weight(), random), grad = reals(c.output(), random);
    CHECK(check_moments(c.forward(), {reals(c.input(), random), weight}) >= 1);
    CHECK(check_sums(c.grad_input(), {grad, weight}, kNorms[1], random) >= 1);
  }
}
