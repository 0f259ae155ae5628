#include <doctest/doctest.h>

#include <algorithm>

#include "backends/test_bfloat16_support.h"
#include "backends/test_conv2d_support.h"

using namespace pycnn;
using namespace pycnn::testing;

namespace {

struct Sizes {
  std::int64_t rows, in, out;
};

std::vector<Sizes> nasty_sizes() {
  std::vector<Sizes> sizes = {{0, 5, 4},     {1, 1, 1},    {1, 400, 120}, {256, 84, 10},
                              {3, 1000, 65}, {2, 7, 2049}, {17, 64, 64},  {33, 31, 130},
                              {600, 20, 33}, {14, 2049, 3}};
  const std::int64_t some[] = {1, 2, 3, 15, 16, 17, 31, 33, 64, 65};
  for (std::size_t i = 0; i < 10; ++i) {
    sizes.push_back({some[(i + 3) % 10], some[i], some[(i * 3 + 5) % 10]});
    sizes.push_back({1, some[i], some[(i * 7 + 1) % 10] * 4});
  }
  return sizes;
}

}  // namespace

TEST_CASE("dense: every variant has the reference's bits on whole numbers") {
  std::mt19937 random(1);
  for (const Sizes& s : nasty_sizes()) {
    CAPTURE(s.rows);
    CAPTURE(s.in);
    CAPTURE(s.out);
    const Values input = whole_numbers({s.rows, s.in}, random);
    const Values weight = whole_numbers({s.out, s.in}, random);
    const Values grad = whole_numbers({s.rows, s.out}, random);
    check_exact(ops::Dense{}, {input, weight, whole_numbers({s.out}, random)});
    check_exact(ops::Dense{}, {input, weight});
    check_exact(ops::DenseGradInput{}, {grad, weight});
    check_exact(ops::DenseGradWeight{.bias = true}, {input, grad});
    check_exact(ops::DenseGradWeight{}, {input, grad});
  }
}

TEST_CASE("dense: large weights, which are read as they are, give the reference's bits too") {
  std::mt19937 random(3);
  for (const Sizes& s : {Sizes{5, 2080, 509}, Sizes{3, 1051, 1009}}) {
    CAPTURE(s.in);
    const Values input = whole_numbers({s.rows, s.in}, random);
    const Values weight = whole_numbers({s.out, s.in}, random);
    const Values bias = whole_numbers({s.out}, random);
    const auto names = fast_variants(ops::Dense{}, {input, weight, bias});
    CHECK(std::any_of(names.begin(), names.end(), [](const std::string& name) {
      return name.find(".rows.") != std::string::npos;
    }));
    check_exact(ops::Dense{}, {input, weight, bias});
    check_exact(ops::DenseGradInput{}, {whole_numbers({s.rows, s.out}, random), weight});
    const Values other = whole_numbers({s.rows, s.out}, random);
    for (const bool residual : {false, true}) {
      ops::Dense op;
      op.epilogue = {.residual = residual, .activation = ActivationKind::kLeakyRelu, .slope = 0.5};
      std::vector<Values> inputs = {input, weight, bias};
      if (residual) inputs.push_back(other);
      check_exact(op, inputs);
    }
  }
}

TEST_CASE("dense: sums per thread have the reference's bits on whole numbers") {
  std::mt19937 random(8);
  for (const Sizes& s : {Sizes{0, 5, 4}, Sizes{1, 1, 1}, Sizes{1, 33, 17}, Sizes{17, 64, 65},
                         Sizes{333, 84, 110}, Sizes{31, 301, 203}, Sizes{901, 20, 47}}) {
    CAPTURE(s.rows);
    CAPTURE(s.in);
    CAPTURE(s.out);
    const Values input = whole_numbers({s.rows, s.in}, random);
    const Values grad = whole_numbers({s.rows, s.out}, random);
    for (const bool bias : {false, true})
      check_exact_per_thread(ops::DenseGradWeight{.bias = bias}, {input, grad});
  }
}

TEST_CASE("dense: rounding errors stay within the bound for the length of the sums") {
  std::mt19937 random(2);
  for (const Sizes& s : nasty_sizes()) {
    CAPTURE(s.rows);
    CAPTURE(s.in);
    CAPTURE(s.out);
    const Values input = reals({s.rows, s.in}, random), weight = reals({s.out, s.in}, random);
    const Values grad = reals({s.rows, s.out}, random);
    check_condition(ops::Dense{}, {input, weight, reals({s.out}, random)},
                    static_cast<double>(s.in + 1));
    check_condition(ops::DenseGradInput{}, {grad, weight}, static_cast<double>(s.out));
    check_condition(ops::DenseGradWeight{.bias = true}, {input, grad}, static_cast<double>(s.rows));
  }
}

TEST_CASE("dense: leading axes are rows, and one row has the bits it has in a batch") {
  std::mt19937 random(3);
  for (const std::int64_t out : {10, 120, 300}) {
    const Values input = reals({2, 3, 5, 40}, random), weight = reals({out, 40}, random);
    const auto all = run<float>(ops::Dense{}, {input, weight}, {.isa = best_isa()})[0];
    for (std::size_t row = 0; row < 30; ++row) {
      Values one{{1, 40}, {}};
      const auto from = input.data.begin() + static_cast<std::ptrdiff_t>(row * 40);
      one.data.assign(from, from + 40);
      const auto alone = run<float>(ops::Dense{}, {one, weight}, {.isa = best_isa()})[0];
      const auto width = static_cast<std::ptrdiff_t>(out);
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(row) * width;
      CHECK(same_bits(alone, std::vector<float>(begin, begin + width)));
    }
  }
}

TEST_CASE("dense: the epilogue equals separate steps") {
  std::mt19937 random(4);
  const Values input = reals({9, 21}, random), weight = reals({45, 21}, random);
  const Values bias = reals({45}, random), residual = reals({9, 45}, random);
  const Isa isa = best_isa();
  Values sum{{9, 45}, run<float>(ops::Dense{}, {input, weight, bias}, {.isa = isa})[0]};
  for (std::size_t i = 0; i < sum.data.size(); ++i) sum.data[i] += residual.data[i];
  for (const auto kind : {ActivationKind::kRelu, ActivationKind::kRelu6, ActivationKind::kTanh}) {
    const auto expected = run<float>(ops::Activation{.kind = kind}, {sum}, {.isa = isa})[0];
    const ops::Dense fused{.epilogue = {.residual = true, .activation = kind}};
    const std::vector<Values> inputs = {input, weight, bias, residual};
    CHECK(same_bits(run<float>(fused, inputs, {.isa = isa})[0], expected));
    CHECK(same_bits(run<float>(fused, inputs, {.isa = isa, .in_place = true})[0], expected));
  }
}

TEST_CASE("dense in bfloat16: the reference's numbers, rounded, on whole numbers") {
  std::mt19937 random(5);
  std::vector<Sizes> sizes = nasty_sizes();
  sizes.push_back({40, 600, 100});
  sizes.push_back({200, 12, 300});
  sizes.push_back({40, 64, 96});  // whole blocks
  sizes.push_back({1100, 32, 64});
  for (const Sizes& s : sizes) {
    CAPTURE(s.rows);
    CAPTURE(s.in);
    CAPTURE(s.out);
    const Values input = whole_numbers({s.rows, s.in}, random);
    const Values weight = whole_numbers({s.out, s.in}, random);
    const Values grad = whole_numbers({s.rows, s.out}, random);
    check_exact_bfloat16(ops::Dense{}, {input, weight, whole_numbers({s.out}, random)});
    ops::Dense fused;
    fused.epilogue = {.residual = true, .activation = ActivationKind::kRelu};
    check_exact_bfloat16(fused, {input, weight, grad});
    check_exact_bfloat16(ops::DenseGradInput{}, {grad, weight});
    check_exact_bfloat16(ops::DenseGradWeight{.bias = true}, {input, grad});
    check_exact_bfloat16(ops::DenseGradWeight{}, {input, grad});
  }
}

TEST_CASE("dense in bfloat16: large weights, which may be read as they are, give the same bits") {
  std::mt19937 random(7);
  // Forward: parts of 512 or 1024 inputs by 32 outputs, backward of 256 outputs by 128 inputs or of
  // 32 by 256. Few rows are copied and fill half a tile; many are several tiles; last parts, blocks
  // and shares are short.
  for (const Sizes& s :
       {Sizes{3, 1056, 1000}, Sizes{16, 1056, 1000}, Sizes{33, 2080, 260}, Sizes{70, 1000, 544}}) {
    CAPTURE(s.in);
    const bool forward = s.in % 32 == 0, backward = s.out % 32 == 0;
    const Values input = whole_numbers({s.rows, s.in}, random);
    const Values weight = whole_numbers({s.out, s.in}, random);
    const Values grad = whole_numbers({s.rows, s.out}, random);
    const Values bias = whole_numbers({s.out}, random);
    ops::Dense fused;
    fused.epilogue = {.residual = true, .activation = ActivationKind::kRelu};
    ops::Dense curved;
    curved.epilogue.activation = ActivationKind::kTanh;
    for (const std::string& name : bfloat16_variants(ops::Dense{}, {input, weight})) {
      CAPTURE(name);
      CHECK(reads_unpacked(ops::Dense{}, {input, weight}, name) == forward);
    }
    for (const std::string& name : bfloat16_variants(ops::DenseGradInput{}, {grad, weight})) {
      CAPTURE(name);
      CHECK(reads_unpacked(ops::DenseGradInput{}, {grad, weight}, name) == backward);
    }
    if (forward) {
      check_exact_bfloat16(ops::Dense{}, {input, weight, bias});
      check_exact_bfloat16(fused, {input, weight, bias, grad});
      each_bfloat16_run(curved, {input, weight}, [](const auto&, const auto&) {});
    }
    if (backward) check_exact_bfloat16(ops::DenseGradInput{}, {grad, weight});
  }
}

// The smallest that are read so: little work for AMX in software under sanitizers.
TEST_CASE("dense in bfloat16: few rows and a weight in parts, read as it is, give the same bits") {
  std::mt19937 random(9);
  const Values input = whole_numbers({3, 2080}, random);
  const Values weight = whole_numbers({260, 2080}, random);
  for (const std::string& name : bfloat16_variants(ops::Dense{}, {input, weight})) {
    CAPTURE(name);
    CHECK(reads_unpacked(ops::Dense{}, {input, weight}, name));
  }
  check_exact_bfloat16(ops::Dense{}, {input, weight, whole_numbers({260}, random)});
  const Values grad = whole_numbers({3, 544}, random);
  const Values other = whole_numbers({544, 1000}, random);
  for (const std::string& name : bfloat16_variants(ops::DenseGradInput{}, {grad, other})) {
    CAPTURE(name);
    CHECK(reads_unpacked(ops::DenseGradInput{}, {grad, other}, name));
  }
  check_exact_bfloat16(ops::DenseGradInput{}, {grad, other});
}

TEST_CASE("dense in bfloat16: rounding errors stay within the bound") {
  std::mt19937 random(6);
  for (const Sizes& s : nasty_sizes()) {
    CAPTURE(s.rows);
    CAPTURE(s.in);
    CAPTURE(s.out);
    const Values input = reals({s.rows, s.in}, random), weight = reals({s.out, s.in}, random);
    const Values grad = reals({s.rows, s.out}, random);
    check_condition_bfloat16(ops::Dense{}, {input, weight, reals({s.out}, random)},
                             static_cast<double>(s.in + 1));
    check_condition_bfloat16(ops::DenseGradInput{}, {grad, weight}, static_cast<double>(s.out));
    check_condition_bfloat16(ops::DenseGradWeight{.bias = true}, {input, grad},
                             static_cast<double>(s.rows));
  }
}
