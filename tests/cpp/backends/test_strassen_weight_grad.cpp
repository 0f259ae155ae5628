#include <doctest/doctest.h>

#include <algorithm>

#include "backends/test_conv2d_support.h"

using namespace pycnn;
using namespace pycnn::testing;

// That the arithmetic is right within its rounding is shown in
// tests/ops/test_strassen_weight_grad.py.
namespace {

struct Case {
  std::int64_t n = 1, h = 16, w = 17, ic = 128, oc = 128;
  Pair stride = {1, 1};
  Pair kernel = {1, 1};
  std::int64_t padding = 0;  // of each side
  Pair dilation = {1, 1};
  std::int64_t far = 0;  // more padding at the bottom and at the right

  Shape input() const { return {n, h, w, ic}; }
  Shape grad() const { return {n, results(h, 0), results(w, 1), oc}; }
  std::int64_t results(std::int64_t side, std::size_t axis) const {
    return (side + 2 * padding + far - (kernel[axis] - 1) * dilation[axis] - 1) / stride[axis] + 1;
  }
  ops::Conv2dGradWeight op(bool bias) const {
    ops::Conv2dGradWeight op;
    op.stride = stride, op.kernel_size = kernel, op.dilation = dilation, op.bias = bias;
    op.padding = {padding, padding + far, padding, padding + far};
    return op;
  }
};

bool is_strassen(const std::string& variant) {
  return variant.find(".strassen.") != std::string::npos;
}

// The variants of this machine that take the problem.
std::vector<std::string> strassen_variants(const ops::Conv2dGradWeight& op,
                                           const std::vector<Values>& inputs) {
  std::vector<std::string> names = fast_variants(op, inputs);
  std::erase_if(names, [](const std::string& name) { return !is_strassen(name); });
  return names;
}

const std::vector<Case> kCases = {
    {},
    {.h = 17, .w = 19, .oc = 64},                  // the last pixel has no partner
    {.n = 25, .h = 3, .w = 5, .oc = 86},           // a panel of one output channel, or few
    {.h = 16, .w = 16, .ic = 192, .oc = 194},      // and of more
    {.n = 3, .h = 21, .w = 19, .stride = {2, 2}},  // pixels between are left out
    {.n = 5, .h = 12, .w = 9, .stride = {1, 2}},
    {.n = 11, .h = 13, .w = 13, .ic = 256, .stride = {3, 2}},
    {.n = 3, .h = 15, .w = 17, .oc = 522},             // shares of the output channels
    {.n = 2, .h = 41, .w = 39, .ic = 128, .oc = 132},  // long parts
    // Shares of the input channels, not all alike.
    {.h = 16, .w = 16, .ic = 576, .oc = 70},
    {.h = 17, .w = 17, .ic = 1088, .oc = 64, .padding = 1},
    {.h = 16, .w = 16, .ic = 576, .oc = 514},  // and of the output channels
    {.h = 17, .w = 17, .ic = 576, .oc = 522, .kernel = {1, 2}},
    // Windows: an odd number of pixels, padding, and taps of which none sees some rows.
    {.n = 5, .h = 13, .w = 21, .oc = 70, .stride = {2, 2}, .kernel = {3, 3}, .padding = 1},
    {.n = 2, .h = 12, .w = 12, .oc = 64, .padding = 1},
    {.n = 2, .h = 15, .w = 14, .oc = 66, .kernel = {3, 2}, .padding = 1, .dilation = {2, 1}},
    {.n = 1, .h = 58, .w = 31, .oc = 64, .stride = {2, 1}, .kernel = {5, 3}, .padding = 2},
    // As many results as pixels, which lie elsewhere.
    {.n = 1, .h = 16, .w = 16, .oc = 64, .stride = {2, 2}, .far = 15},
    {.n = 3, .h = 12, .w = 9, .oc = 64, .far = 3},
    {.n = 33, .h = 6, .w = 5, .oc = 64, .stride = {2, 2}, .kernel = {3, 5}, .padding = 2},
};

}  // namespace

TEST_CASE("strassen: every variant of the weight gradient has the reference's bits") {
  if (best_isa() < Isa::kAvx512) return;
  std::mt19937 random(1);
  for (const Case& c : kCases) {
    CAPTURE(to_string(c.input()));
    CAPTURE(to_string(c.grad()));
    const Values input = whole_numbers(c.input(), random, 3);
    const Values grad = whole_numbers(c.grad(), random, 3);
    for (const bool bias : {false, true}) {
      CHECK(!strassen_variants(c.op(bias), {input, grad}).empty());
      check_exact(c.op(bias), {input, grad}, Winograd::kTaken);
    }
  }
}

TEST_CASE("strassen: threads and steps of pixels do not change the bits of the weight gradient") {
  if (best_isa() < Isa::kAvx512) return;
  std::mt19937 random(2);
  for (const Case& c : kCases) {
    CAPTURE(to_string(c.input()));
    const std::vector<Values> inputs = {reals(c.input(), random), reals(c.grad(), random)};
    for (const std::string& variant : strassen_variants(c.op(true), inputs)) {
      CAPTURE(variant);
      const auto alone = run<float>(c.op(true), inputs, {.variant = variant});
      for (const int threads : {2, 3, 7}) {
        const RunOptions options{.variant = variant, .threads = threads, .apart = threads == 3};
        const auto shared = run<float>(c.op(true), inputs, options);
        for (std::size_t i = 0; i < alone.size(); ++i) CHECK(same_bits(shared[i], alone[i]));
      }
    }
  }
}

TEST_CASE("strassen: one problem has one plan, and the option turns it off") {
  if (best_isa() < Isa::kAvx512) return;
  const Case c;
  const std::vector<TensorSpec> inputs = {{c.input(), DType::kFloat32},
                                          {c.grad(), DType::kFloat32}};
  const std::vector<TensorSpec> outputs = c.op(true).infer(inputs);
  int ran = 0;
  for (const std::string& variant : cpu::variants(c.op(true))) {
    if (!is_strassen(variant)) continue;
    CAPTURE(variant);
    Problem problem{inputs, outputs, best_isa(), 2, variant};
    try {
      const Kernel first = cpu::select(c.op(true), problem).kernel;
      const Kernel second = cpu::select(c.op(true), problem).kernel;
      CHECK(first.plan == second.plan);
    } catch (const UnsupportedError&) {  // another machine's
      continue;
    }
    problem.winograd = false;
    CHECK_THROWS_AS(cpu::select(c.op(true), problem), UnsupportedError);
    ++ran;
  }
  CHECK(ran > 0);
}

TEST_CASE("strassen: scratch of the weight gradient grows with threads, not with pixels") {
  if (best_isa() < Isa::kAvx512) return;
  auto scratch = [](const Case& c, int threads) {
    const std::vector<TensorSpec> inputs = {{c.input(), DType::kFloat32},
                                            {c.grad(), DType::kFloat32}};
    const std::vector<TensorSpec> outputs = c.op(false).infer(inputs);
    return cpu::select(c.op(false), {inputs, outputs, Isa::kAvx512, threads,
                                     "conv2d_grad_weight.strassen.avx512"})
        .kernel.scratch_bytes;
  };
  const Case small{.n = 1, .h = 64, .w = 64, .ic = 512, .oc = 512};
  const Case large{.n = 100, .h = 64, .w = 64, .ic = 512, .oc = 512};
  const std::size_t weights = std::size_t{512} * 512 * sizeof(float);
  // Seven products of a quarter for each thread, beside the sums of a unit; seven more parts.
  const std::size_t worker = 7 * weights / 4 + (1 << 20);
  CHECK(scratch(small, 1) <= 7 * weights + worker);
  CHECK(scratch(large, 1) <= 7 * weights + worker);
  CHECK(scratch(large, 2) - scratch(large, 1) <= worker);
}
