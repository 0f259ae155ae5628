#include <doctest/doctest.h>

#include <sstream>

#include "backends/test_conv2d_support.h"

using namespace pycnn;
using namespace pycnn::testing;

// That the arithmetic is right within its rounding is shown in tests/ops/test_strassen.py.
namespace {

struct Case {
  std::int64_t n = 1, h = 12, w = 11, ic = 128, oc = 128;
  Pair stride = {1, 1};

  Shape input() const { return {n, h, w, ic}; }
  Shape weight() const { return {oc, 1, 1, ic}; }
  Shape output() const { return {n, (h - 1) / stride[0] + 1, (w - 1) / stride[1] + 1, oc}; }
  ops::Conv2d forward() const {
    ops::Conv2d op;
    op.stride = stride;
    return op;
  }
  ops::Conv2dGradInput grad_input() const {
    ops::Conv2dGradInput op;
    op.stride = stride, op.input_size = {h, w};
    return op;
  }
  std::string text() const {
    std::ostringstream out;
    out << to_string(input()) << " to " << to_string(output());
    return out.str();
  }
};

bool is_strassen(const std::string& variant) {
  return variant.find(".strassen.") != std::string::npos;
}

// There are kernels for AVX-512 alone.
bool can_run() { return best_isa() >= Isa::kAvx512; }

template <class OpType>
bool any_strassen(const OpType& op, const std::vector<Values>& inputs) {
  for (const std::string& name : fast_variants(op, inputs))
    if (is_strassen(name)) return true;
  return false;
}

void check_epilogue(const Case& c, std::mt19937& random) {
  CAPTURE(c.text());
  const Values input = reals(c.input(), random), weight = reals(c.weight(), random);
  const Values bias = reals({c.oc}, random), residual = reals(c.output(), random);
  REQUIRE(any_strassen(c.forward(), {input, weight, bias}));
  {
    constexpr Isa isa = Isa::kAvx512;
    const auto plain = run<float>(c.forward(), {input, weight, bias}, {.isa = isa})[0];
    for (const bool with_residual : {false, true})
      for (const auto kind : {ActivationKind::kIdentity, ActivationKind::kRelu,
                              ActivationKind::kLeakyRelu, ActivationKind::kTanh}) {
        Values sum{c.output(), plain};
        if (with_residual)
          for (std::size_t i = 0; i < sum.data.size(); ++i) sum.data[i] += residual.data[i];
        const auto expected =
            kind == ActivationKind::kIdentity
                ? sum.data
                : run<float>(ops::Activation{.kind = kind, .slope = 0.125}, {sum}, {.isa = isa})[0];
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

}  // namespace

TEST_CASE("strassen: every variant has the reference's bits on whole numbers") {
  if (!can_run()) return;
  std::mt19937 random(1);
  const std::vector<Case> cases = {
      {},
      {.n = 0},
      {.n = 3, .h = 3, .w = 43},  // the last pixel of each image has no partner
      {.h = 1, .w = 128, .ic = 146, .oc = 192},
      {.n = 2, .h = 23, .w = 25, .ic = 130, .stride = {2, 2}},
      {.h = 12, .w = 11, .ic = 134},  // halves of 67: three behind the fours
      {.n = 1, .h = 130, .w = 2, .stride = {1, 2}},
      {.h = 16, .w = 8, .oc = 448},              // output channels are shared out
      {.n = 2, .h = 29, .w = 31},                // more chunks of pairs than cores
      {.h = 11, .w = 13, .ic = 384, .oc = 448},  // packed weights go past the caches
      // Two levels; the last ones share out their output channels, or have many chunks.
      {.n = 3, .h = 12, .w = 11, .ic = 256, .oc = 256},
      {.n = 0, .ic = 256, .oc = 256},
      {.n = 2, .h = 23, .w = 31, .ic = 320, .oc = 128, .stride = {2, 2}},
      {.h = 16, .w = 8, .ic = 256, .oc = 1024},
      {.n = 2, .h = 32, .w = 31, .ic = 256, .oc = 256},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text());
    const Values input = whole_numbers(c.input(), random), bias = whole_numbers({c.oc}, random);
    const Values weight = whole_numbers(c.weight(), random);
    const Values grad = whole_numbers(c.output(), random);
    REQUIRE(any_strassen(c.forward(), {input, weight, bias}));
    check_exact(c.forward(), {input, weight, bias}, Winograd::kTaken);
    if (c.ic % 64 != 0) continue;
    REQUIRE(any_strassen(c.grad_input(), {grad, weight}));
    check_exact(c.grad_input(), {grad, weight}, Winograd::kTaken);
  }
}

TEST_CASE("strassen: the gradient for the input of small images has the reference's bits") {
  if (!can_run()) return;
  std::mt19937 random(2);
  for (const Case& c :
       {Case{.n = 3, .h = 5, .w = 5}, Case{.n = 2, .h = 7, .w = 9, .stride = {2, 2}}}) {
    CAPTURE(c.text());
    const Values grad = whole_numbers(c.output(), random),
                 weight = whole_numbers(c.weight(), random);
    REQUIRE(any_strassen(c.grad_input(), {grad, weight}));
    check_exact(c.grad_input(), {grad, weight}, Winograd::kTaken);
  }
}

TEST_CASE("strassen: the epilogue equals separate steps, also in place and at the edge of memory") {
  if (!can_run()) return;
  std::mt19937 random(3);
  for (const Case& c :
       {Case{.n = 2, .h = 3, .w = 43}, Case{.h = 12, .w = 11, .ic = 256, .oc = 256}})
    check_epilogue(c, random);
}

TEST_CASE("strassen: one problem has one plan, and the option turns it off") {
  if (!can_run()) return;
  const Case c;
  const std::vector<TensorSpec> inputs = {{c.input(), DType::kFloat32},
                                          {c.weight(), DType::kFloat32}};
  const std::vector<TensorSpec> outputs = {{c.output(), DType::kFloat32}};
  int ran = 0;
  for (const std::string& variant : cpu::variants(c.forward())) {
    if (!is_strassen(variant)) continue;
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
