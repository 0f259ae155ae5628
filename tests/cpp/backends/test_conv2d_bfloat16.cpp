#include <doctest/doctest.h>

#include "backends/test_bfloat16_support.h"
#include "backends/test_conv2d_cases.h"

using namespace pycnn;
using namespace pycnn::testing;

namespace {

void check_exact_case(const Case& c, std::mt19937& random) {
  CAPTURE(c.text());
  const Values input = whole_numbers(c.input(), random), weight = whole_numbers(c.weight(), random);
  const Values bias = whole_numbers({c.oc}, random), grad = whole_numbers(c.output(), random);
  check_exact_bfloat16(c.forward(), {input, weight, bias});
  check_exact_bfloat16(c.grad_input(), {grad, weight});
  check_exact_bfloat16(c.grad_weight(true), {input, grad});
}

Values image_of(const Values& batch, std::size_t i) {
  Values one = batch;
  one.shape[0] = 1;
  const std::size_t size = count_of(one.shape);
  one.data.assign(batch.data.begin() + static_cast<std::ptrdiff_t>(i * size),
                  batch.data.begin() + static_cast<std::ptrdiff_t>((i + 1) * size));
  return one;
}

}  // namespace

TEST_CASE("conv2d in bfloat16: the reference's numbers, rounded, on whole numbers, nasty shapes") {
  std::mt19937 random(1);
  for (const Case& c : nasty_cases()) check_exact_case(c, random);
  // Many steps of the sum, many tiles, several chunks of a large image, and rows of few channels.
  for (const Case& c : {
           Case{.n = 1, .h = 6, .w = 5, .ic = 300, .oc = 70, .padding = {1, 1, 1, 1}},
           Case{.n = 40, .h = 1, .w = 1, .ic = 16, .oc = 9, .kh = 1, .kw = 1},
           Case{.n = 2, .h = 70, .w = 66, .ic = 64, .oc = 8, .padding = {1, 1, 1, 1}},
           Case{.n = 3, .h = 13, .w = 12, .ic = 16, .oc = 32, .kh = 5, .kw = 5},
           Case{.n = 1, .h = 30, .w = 31, .ic = 33, .oc = 20, .stride = {2, 2}},
           Case{.n = 2, .h = 1, .w = 40, .ic = 130, .oc = 260, .kh = 1, .kw = 1},
           Case{.n = 2, .h = 3, .w = 3, .ic = 1056, .oc = 1024, .kh = 1, .kw = 1},
           Case{.n = 1, .h = 9, .w = 9, .ic = 128, .oc = 64, .groups = 4},
           // Groups: vectors that several share, one fills or two, the last of them partly filled;
           // blocks of the input that end within 32 channels; taps that no pixel shares.
           Case{.n = 2, .h = 7, .w = 19, .ic = 24, .oc = 24, .padding = {1, 1, 1, 1}, .groups = 6},
           Case{.n = 1, .h = 6, .w = 31, .ic = 48, .oc = 48, .padding = {1, 0, 1, 2}, .groups = 6},
           Case{.n = 3, .h = 5, .w = 4, .ic = 10, .oc = 10, .padding = {1, 1, 1, 1}, .groups = 5},
           Case{.n = 2, .h = 9, .w = 8, .ic = 80, .oc = 80, .padding = {1, 1, 1, 1}, .groups = 5},
           Case{.n = 2, .h = 9, .w = 8, .ic = 66, .oc = 66, .padding = {1, 1, 1, 1}, .groups = 3},
           Case{.n = 1, .h = 9, .w = 30, .ic = 48, .oc = 48, .stride = {2, 2}, .groups = 12},
           Case{.n = 1, .h = 9, .w = 9, .ic = 32, .oc = 32, .kh = 5, .kw = 4, .groups = 2},
           Case{.n = 1, .h = 9, .w = 9, .ic = 32, .oc = 32, .dilation = {1, 2}, .groups = 4},
           // Groups that fill slices of 32 channels: odd rows, one pixel a row, several blocks of
           // rows, several parts, taps far apart.
           Case{.n = 3, .h = 7, .w = 19, .ic = 64, .oc = 64, .padding = {1, 1, 1, 1}, .groups = 16},
           Case{.n = 9, .h = 3, .w = 3, .ic = 96, .oc = 96, .groups = 6},
           Case{.n = 1, .h = 40, .w = 58, .ic = 32, .oc = 32, .padding = {1, 1, 1, 1}, .groups = 4},
           Case{.n = 2,
           .h = 41,
           .w = 56,
           .ic = 32,
           .oc = 32,
           .stride = {2, 2},
           .padding = {1, 1, 1, 1},
           .groups = 8},
           Case{.n = 2,
           .h = 11,
           .w = 10,
           .ic = 64,
           .oc = 64,
           .kh = 2,
           .stride = {1, 2},
           .padding = {0, 3, 2, 5},
           .dilation = {3, 1},
           .groups = 2},
           Case{.n = 1,
           .h = 5,
           .w = 7,
           .ic = 512,
           .oc = 512,
           .stride = {1, 2},
           .padding = {0, 1, 1, 1},
           .groups = 16},
           // Weights that do not stay near: some groups at a time, row by row or vector by vector.
           Case{.n = 1,
           .h = 3,
           .w = 5,
           .ic = 1152,
           .oc = 1152,
           .padding = {1, 1, 1, 1},
           .groups = 72},
           Case{
               .n = 2, .h = 4, .w = 5, .ic = 576, .oc = 576, .padding = {1, 0, 1, 1}, .groups = 18},
           // Winograd's tiles: odd sides, channels that fill no step or block, several chunks, and
           // output channels that are shared out.
           Case{.n = 3, .h = 7, .w = 10, .ic = 45, .oc = 70, .padding = {1, 1, 1, 1}},
           Case{.n = 1, .h = 4, .w = 4, .ic = 32, .oc = 600, .padding = {1, 1, 1, 1}},
           Case{.n = 2, .h = 41, .w = 38, .ic = 32, .oc = 33, .padding = {0, 1, 2, 0}},
           Case{.n = 2, .h = 9, .w = 9, .ic = 530, .oc = 33},
       })
    check_exact_case(c, random);
}

// Rows long enough that AMX takes taps as rows: one step of a row and several, whole and not, few
// output channels and several blocks, tiles of taps by ones, twos and fours, several blocks of
// rows.
TEST_CASE("conv2d in bfloat16: the reference's numbers, rounded, on whole numbers, few channels") {
  std::mt19937 random(2);
  for (const Case& c : {
           Case{.n = 3,
          .h = 28,
          .w = 28,
          .ic = 1,
          .oc = 6,
          .kh = 5,
          .kw = 5,
          .padding = {2, 2, 2, 2}},
           Case{.n = 2,
           .h = 36,
           .w = 75,
           .ic = 3,
           .oc = 40,
           .kh = 7,
           .kw = 7,
           .stride = {2, 2},
           .padding = {3, 3, 3, 3}},
           Case{.n = 1,
           .h = 39,
           .w = 227,
           .ic = 3,
           .oc = 64,
           .kh = 11,
           .kw = 11,
           .stride = {4, 4},
           .padding = {2, 2, 2, 2}},
           Case{.n = 1, .h = 40, .w = 130, .ic = 3, .oc = 70, .padding = {1, 1, 1, 1}},
           Case{.n = 2,
           .h = 9,
           .w = 40,
           .ic = 8,
           .oc = 16,
           .kh = 4,
           .kw = 2,
           .stride = {3, 2},
           .padding = {1, 2, 0, 4},
           .dilation = {1, 3}},
           Case{.n = 2, .h = 5, .w = 34, .ic = 6, .oc = 17, .kh = 1, .kw = 3, .dilation = {1, 2}},
           Case{.n = 2, .h = 4, .w = 70, .ic = 7, .oc = 12, .kh = 3, .kw = 2, .stride = {5, 4}},
       })
    check_exact_case(c, random);
}

TEST_CASE("conv2d in bfloat16: the reference's numbers, rounded, on whole numbers, random shapes") {
  for (unsigned seed = 300; seed < 330; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    check_exact_case(random_case(random), random);
  }
}

// Rows of taps over few channels are runs of any length: even and odd, longer than a step of AMX,
// of one tap, of different taps from pass to pass (gradients with a stride). Rows of gradients
// are odd and even, and more than stay near.
TEST_CASE("conv2d in bfloat16: the reference's numbers, rounded, few channels") {
  std::mt19937 random(6);
  for (const Case& c : {
           Case{.n = 2,
          .h = 15,
          .w = 16,
          .ic = 3,
          .oc = 64,
          .kh = 7,
          .kw = 7,
          .stride = {2, 2},
          .padding = {3, 3, 3, 3}},
           Case{.n = 1,
           .h = 23,
           .w = 31,
           .ic = 3,
           .oc = 40,
           .kh = 11,
           .kw = 11,
           .stride = {4, 4},
           .padding = {2, 1, 2, 0}},
           Case{.n = 3, .h = 5, .w = 29, .ic = 3, .oc = 33, .padding = {1, 1, 1, 1}},
           Case{.n = 2, .h = 9, .w = 9, .ic = 1, .oc = 20, .kh = 5, .kw = 5},
           Case{.n = 2, .h = 4, .w = 9, .ic = 1, .oc = 17, .kh = 3, .kw = 2, .stride = {1, 3}},
           Case{.n = 2, .h = 6, .w = 7, .ic = 1, .oc = 32, .kh = 3, .kw = 1},
           Case{.n = 2, .h = 6, .w = 7, .ic = 5, .oc = 64, .kh = 1, .kw = 4, .dilation = {3, 1}},
           Case{.n = 2, .h = 9, .w = 8, .ic = 5, .oc = 16, .kh = 3, .kw = 4, .dilation = {2, 1}},
           Case{.n = 1, .h = 9, .w = 12, .ic = 3, .oc = 16, .dilation = {1, 2}},
           Case{.n = 2, .h = 9, .w = 12, .ic = 15, .oc = 33, .kh = 2, .kw = 7},
           Case{.n = 2, .h = 8, .w = 12, .ic = 48, .oc = 24, .kh = 5, .kw = 5},
           Case{.n = 2,
           .h = 8,
           .w = 12,
           .ic = 24,
           .oc = 3,
           .kh = 7,
           .kw = 7,
           .stride = {2, 2},
           .padding = {3, 3, 3, 3}},
           Case{.n = 40, .h = 3, .w = 3, .ic = 8, .oc = 96, .padding = {1, 1, 1, 1}},
           Case{.n = 1,
           .h = 50,
           .w = 301,
           .ic = 2,
           .oc = 70,
           .stride = {1, 1},
           .padding = {1, 0, 0, 1}},
       })
    check_exact_case(c, random);
}

// Rows of tiles by twos and alone, in one strip or several, odd and even; rows that make several
// chunks; channels that fill no step or block; output channels that are shared out.
TEST_CASE("conv2d in bfloat16: the reference's numbers, rounded, 5x5 windows by tiles") {
  std::mt19937 random(8);
  for (Case c : {
           Case{.n = 3, .h = 9, .w = 11, .ic = 45, .oc = 70, .padding = {2, 2, 2, 2}},
           Case{.n = 1, .h = 27, .w = 21, .ic = 64, .oc = 33, .padding = {2, 2, 2, 2}},
           Case{.n = 1, .h = 12, .w = 13, .ic = 32, .oc = 33},
           Case{.n = 1, .h = 10, .w = 39, .ic = 33, .oc = 32, .padding = {1, 2, 0, 3}},
           Case{.n = 1, .h = 45, .w = 8, .ic = 32, .oc = 32, .padding = {4, 0, 3, 4}},
           Case{.n = 1, .h = 8, .w = 8, .ic = 45, .oc = 300, .padding = {2, 2, 2, 2}},
           Case{.n = 1, .h = 9, .w = 61, .ic = 40, .oc = 32, .padding = {2, 2, 2, 2}},
       }) {
    c.kh = c.kw = 5;
    check_exact_case(c, random);
  }
}

// random_case hardly ever has channels that Winograd's tiles or pairs of a group's channels take.
TEST_CASE("conv2d in bfloat16: the reference's numbers, rounded, random tiles and groups") {
  for (unsigned seed = 400; seed < 424; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    auto draw = [&](int low, int high) {
      return static_cast<std::int64_t>(std::uniform_int_distribution<int>(low, high)(random));
    };
    Case c;
    do {
      c = {};
      c.n = draw(1, 4), c.h = draw(1, 12), c.w = draw(1, 33);
      c.padding = {draw(0, 3), draw(0, 3), draw(0, 3), draw(0, 3)};
      if (seed % 2 == 0) {
        c.ic = draw(32, 70), c.oc = draw(32, 70);
        continue;
      }
      if (seed % 4 == 1) {  // slices of 32 channels
        const std::int64_t group = std::int64_t{4} << draw(0, 2);
        c.ic = c.oc = 32 * draw(1, 3), c.groups = c.ic / group;
        c.kh = draw(1, 4), c.stride = {draw(1, 3), draw(1, 2)}, c.dilation = {draw(1, 2), 1};
        continue;
      }
      const std::int64_t reads[] = {2, 4, 8, 16, 18, 24, 32, 40, 64};
      c.groups = draw(2, 9), c.ic = c.oc = c.groups * reads[draw(0, 8)];
      c.kh = draw(1, 5), c.kw = draw(1, 7);
      c.stride = {draw(1, 3), draw(1, 3)}, c.dilation = {draw(1, 2), draw(1, 3)};
    } while (!c.fits() || c.n * c.h * c.w * c.ic * c.oc * c.kh * c.kw / c.groups > 3'000'000);
    check_exact_case(c, random);
  }
}

TEST_CASE("conv2d in bfloat16: rounding errors stay within the bound") {
  std::mt19937 random(2);
  for (const Case& c : nasty_cases()) {
    if (c.n * c.h * c.w * c.ic * c.oc > 500'000) continue;
    CAPTURE(c.text());
    const Values input = reals(c.input(), random), weight = reals(c.weight(), random);
    const Values bias = reals({c.oc}, random), grad = reals(c.output(), random);
    const Shape out = c.output();
    const auto taps = static_cast<double>(c.kh * c.kw);
    check_condition_bfloat16(c.forward(), {input, weight, bias},
                             taps * static_cast<double>(c.ic / c.groups) + 1);
    check_condition_bfloat16(c.grad_input(), {grad, weight},
                             taps * static_cast<double>(c.oc / c.groups));
    check_condition_bfloat16(c.grad_weight(true), {input, grad},
                             static_cast<double>(out[0] * out[1] * out[2]));
  }
}

TEST_CASE("conv2d in bfloat16: an image's result does not depend on its batch") {
  std::mt19937 random(3);
  for (const Case& c :
       {Case{.n = 8, .h = 7, .w = 7, .ic = 33, .oc = 40, .padding = {1, 1, 1, 1}},
        Case{.n = 8, .h = 3, .w = 3, .ic = 48, .oc = 70, .kh = 1, .kw = 1},
        Case{.n = 8, .h = 9, .w = 9, .ic = 3, .oc = 18, .stride = {2, 2}},
        Case{.n = 8, .h = 9, .w = 9, .ic = 33, .oc = 70, .kh = 5, .kw = 5, .padding = {2, 2, 2, 2}},
        Case{.n = 8, .h = 5, .w = 5, .ic = 32, .oc = 32, .padding = {1, 1, 1, 1}, .groups = 2},
        Case{.n = 8, .h = 5, .w = 5, .ic = 40, .oc = 40, .padding = {1, 1, 1, 1}, .groups = 10}}) {
    CAPTURE(c.text());
    const Values weight = reals(c.weight(), random);
    auto check = [&](const auto& op, const Values& batch) {
      for (const std::string& variant : bfloat16_variants(op, {batch, weight})) {
        CAPTURE(variant);
        const auto all = run_bfloat16(op, {batch, weight}, {.variant = variant})[0];
        std::vector<float> singles;
        for (std::size_t i = 0; i < 8; ++i) {
          const auto one = run_bfloat16(op, {image_of(batch, i), weight}, {.variant = variant})[0];
          singles.insert(singles.end(), one.begin(), one.end());
        }
        CHECK(same_bits(all, singles));
      }
    };
    check(c.forward(), reals(c.input(), random));
    check(c.grad_input(), reals(c.output(), random));
  }
}

// Whole numbers: sums and what is added to them are exact, so that the activation sees one value
// whatever the order.
TEST_CASE("conv2d in bfloat16: the epilogue is computed in float32 and rounded once") {
  std::mt19937 random(5);
  for (const Case& c :
       {Case{.h = 9, .w = 8, .ic = 4, .oc = 33, .padding = {1, 1, 1, 1}},
        Case{.n = 5, .h = 3, .w = 3, .ic = 64, .oc = 64, .kh = 1, .kw = 1},
        Case{.n = 1, .h = 7, .w = 6, .ic = 40, .oc = 45, .padding = {1, 1, 1, 1}},
        Case{.n = 1, .h = 9, .w = 8, .ic = 40, .oc = 45, .kh = 5, .kw = 5, .padding = {2, 2, 2, 2}},
        Case{.n = 2, .h = 5, .w = 7, .ic = 24, .oc = 24, .padding = {1, 1, 1, 1}, .groups = 6},
        Case{.n = 1, .h = 5, .w = 9, .ic = 40, .oc = 40, .padding = {1, 1, 1, 1}, .groups = 2},
        Case{.n = 1, .h = 2, .w = 3, .ic = 40, .oc = 6, .kh = 1, .kw = 1}}) {
    CAPTURE(c.text());
    const Values input = whole_numbers(c.input(), random);
    const Values weight = whole_numbers(c.weight(), random);
    const Values bias = whole_numbers({c.oc}, random);
    const Values residual = whole_numbers(c.output(), random, 200);
    for (const bool with_residual : {false, true})
      for (const auto kind :
           {ActivationKind::kIdentity, ActivationKind::kRelu, ActivationKind::kRelu6,
            ActivationKind::kLeakyRelu, ActivationKind::kSigmoid, ActivationKind::kTanh,
            ActivationKind::kScaledTanh}) {
        CAPTURE(static_cast<int>(kind));
        ops::Conv2d op = c.forward();
        op.epilogue = {.residual = with_residual, .activation = kind, .slope = 0.3};
        std::vector<Values> inputs = {input, weight, bias};
        if (with_residual) inputs.push_back(residual);
        const auto expected = run<double>(op, inputs, {.variant = "reference"})[0];
        for (const std::string& variant : bfloat16_variants(op, inputs)) {
          CAPTURE(variant);
          const auto found = run_bfloat16(op, inputs, {.variant = variant})[0];
          double worst = 0;
          for (std::size_t i = 0; i < found.size(); ++i)
            worst = std::max(worst, std::abs(found[i] - expected[i]) -
                                        (0x1p-8 + 0x1p-18) * std::abs(expected[i]) - 1e-7);
          CHECK(worst <= 0.0);
          if (with_residual) {
            const auto on_residual =
                run_bfloat16(op, inputs, {.variant = variant, .in_place = true})[0];
            CHECK(same_bits(on_residual, found));
          }
        }
      }
  }
}

// Numbers that a sum rounded before the addition would miss.
TEST_CASE("conv2d in bfloat16: a gradient is finished in float32 and rounded once") {
  std::mt19937 random(9);
  for (const Case& c :
       {Case{.n = 5, .h = 3, .w = 3, .ic = 64, .oc = 64, .kh = 1, .kw = 1},
        Case{.n = 1, .h = 5, .w = 7, .ic = 45, .oc = 70, .kh = 1, .kw = 1},
        Case{.n = 1, .h = 2, .w = 3, .ic = 40, .oc = 33, .kh = 1, .kw = 1},
        Case{.n = 1, .h = 9, .w = 31, .ic = 300, .oc = 40, .kh = 1, .kw = 1},
        Case{.n = 2, .h = 9, .w = 8, .ic = 40, .oc = 33, .stride = {2, 2}, .padding = {1, 1, 1, 1}},
        Case{.n = 2, .h = 7, .w = 10, .ic = 45, .oc = 40, .padding = {1, 1, 1, 1}},
        Case{.n = 1, .h = 9, .w = 8, .ic = 45, .oc = 40, .kh = 5, .kw = 5, .padding = {2, 2, 2, 2}},
        Case{.n = 0, .ic = 64, .oc = 64, .kh = 1, .kw = 1}}) {
    CAPTURE(c.text());
    const Values grad = whole_numbers(c.output(), random);
    const Values weight = whole_numbers(c.weight(), random);
    const Values residual = whole_numbers(c.input(), random, 200);
    Values y = whole_numbers(c.input(), random, 2);
    for (std::size_t i = 0; i < y.data.size(); ++i)
      if (i % 7 == 3) y.data[i] = i % 2 == 0 ? NAN : -0.0f;
    for (const bool with_residual : {false, true})
      for (const bool relu : {false, true}) {
        ops::Conv2dGradInput op = c.grad_input();
        op.finish = {with_residual, relu};
        std::vector<Values> inputs = {grad, weight};
        if (with_residual) inputs.push_back(residual);
        if (relu) inputs.push_back(y);
        check_exact_bfloat16(op, inputs);
        if (!with_residual && !relu) continue;
        for (const std::string& variant : bfloat16_variants(op, inputs)) {
          CAPTURE(variant);
          RunOptions options{.variant = variant};
          const auto found = run_bfloat16(op, inputs, options)[0];
          options.in_place = true;
          for (options.earlier = 0; options.earlier + 2 < inputs.size(); ++options.earlier)
            CHECK(same_bits(run_bfloat16(op, inputs, options)[0], found));
        }
        // By float32's kernels, too.
        const auto widened = run_bfloat16(op, inputs, {.variant = "reference"})[0];
        const auto expected = run<float>(op, inputs, {.variant = "reference"})[0];
        for (std::size_t i = 0; i < expected.size(); ++i)
          CHECK(widened[i] == to_bfloat16(expected[i]));
      }
  }
}

TEST_CASE("conv2d in bfloat16: NaN reaches exactly the outputs that see it") {
  std::mt19937 random(6);
  for (const std::int64_t channels : {1, 3, 16, 40}) {
    const Case c{.n = 1, .h = 8, .w = 9, .ic = channels, .oc = 20, .padding = {1, 1, 1, 1}};
    Values input = reals(c.input(), random);
    const Values weight = reals(c.weight(), random);
    input.data[static_cast<std::size_t>((4 * 9 + 5) * channels)] = NAN;
    ops::Conv2d op = c.forward();
    op.epilogue.activation = ActivationKind::kRelu;
    for (const std::string& variant : bfloat16_variants(op, {input, weight})) {
      const auto output = run_bfloat16(op, {input, weight}, {.variant = variant})[0];
      std::size_t wrong = 0;
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(output.size()); ++i) {
        const std::int64_t row = i / 20 / 9, column = i / 20 % 9;
        const bool seen = std::abs(row - 4) <= 1 && std::abs(column - 5) <= 1;
        wrong += std::isnan(output[static_cast<std::size_t>(i)]) != seen;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("conv2d in bfloat16: only a pin chooses the portable loops, units refuse where missing") {
  std::mt19937 random(7);
  const Case c{};
  const std::vector<TensorSpec> specs =
      bfloat16_specs(c.forward(), {reals(c.input(), random), reals(c.weight(), random)});
  const std::vector<TensorSpec> outputs = c.forward().infer(specs);
  const Selection chosen = cpu::select(c.forward(), {specs, outputs, Isa::kBaseline, 1, ""});
  CHECK(std::string(chosen.kernel.variant).find("portable") == std::string::npos);
  CHECK(std::string(chosen.kernel.variant).find("amx") == std::string::npos);
  const Selection pinned =
      cpu::select(c.forward(), {specs, outputs, Isa::kBaseline, 1, "conv2d.bfloat16.portable"});
  CHECK(std::string(pinned.kernel.variant) == "conv2d.bfloat16.portable");
  const std::vector<TensorSpec> wide = {{c.input(), DType::kFloat32}, {c.weight()}};
  CHECK_THROWS_AS(cpu::select(c.forward(), {wide, c.forward().infer(wide), Isa::kBaseline, 1,
                                            "conv2d.bfloat16.portable"}),
                  UnsupportedError);
}
