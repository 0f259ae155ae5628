#include <doctest/doctest.h>

#include "backends/test_conv2d_measure_support.h"
#include "support/variable.h"

// Batch norms that a convolution does of its input while it multiplies. That training steps keep
// their bits is shown in tests/train/test_norm_input.py; here memory ends where tensors do.
using namespace pycnn;
using namespace pycnn::testing;

namespace {

// Last images with a pixel of its own, many chunks, and two levels of Strassen's algorithm.
const std::vector<Case> kPointwise = {
    {.n = 3, .h = 13, .w = 11, .ic = 128, .oc = 256, .kh = 1, .kw = 1},
    {.n = 1, .h = 12, .w = 11, .ic = 256, .oc = 128, .kh = 1, .kw = 1},
    {.n = 9, .h = 14, .w = 14, .ic = 128, .oc = 128, .kh = 1, .kw = 1},
    {.n = 2, .h = 16, .w = 14, .ic = 512, .oc = 512, .kh = 1, .kw = 1},
};

// There are kernels for AVX-512 alone.
bool can_run() { return best_isa() >= Isa::kAvx512; }

template <class OpType>
Kernel kernel_for(const OpType& op, const std::vector<Values>& inputs, int threads) {
  const std::vector<TensorSpec> specs = specs_of<float>(inputs), outputs = op.infer(specs);
  return cpu::select(op, {specs, outputs, Isa::kAvx512, threads}).kernel;
}

// `inputs[0]` is left out: `norm` makes it of `norm_inputs`. The kernel that does both gives the
// bits of one after the other, for any thread count, at either edge of memory, and with the batch
// norm's result on top of what it is made of.
template <class OpType, class NormType>
void check_joined(const OpType& op, const std::vector<Values>& rest, const NormType& norm,
                  const std::vector<Values>& norm_inputs, std::size_t second) {
  const std::vector<std::vector<float>> made = run<float>(norm, norm_inputs);
  std::vector<Values> apart = {Values{norm_inputs[0].shape, made[0]}};
  apart.insert(apart.end(), rest.begin(), rest.end());
  REQUIRE(std::string(kernel_for(op, apart, 1).variant).find(".strassen.") != std::string::npos);
  std::vector<std::vector<float>> expected = run<float>(op, apart);
  const std::size_t own_outputs = expected.size();
  expected.insert(expected.end(), made.begin(), made.end());

  std::vector<Values> joined = {norm_inputs[0]};
  joined.insert(joined.end(), rest.begin(), rest.end());
  joined.insert(joined.end(), norm_inputs.begin() + 1, norm_inputs.end());
  const Op norm_op = norm;
  const std::vector<TensorSpec> norm_specs = specs_of<float>(norm_inputs);
  const std::vector<TensorSpec> norm_results = norm.infer(norm_specs);
  std::vector<TensorSpec> results = op.infer(specs_of<float>(apart));
  results.insert(results.end(), norm_results.begin(), norm_results.end());

  const auto check = [&](const RunOptions& options) {
    CAPTURE(options.threads);
    CAPTURE(options.in_place);
    Kernel kernel = kernel_for(op, apart, options.threads);
    REQUIRE(static_cast<bool>(kernel.absorb));
    REQUIRE(kernel.absorb(kernel, op, {&norm_op, norm_specs, norm_results, false, 0}));
    const auto found = run_selected<float>(kernel, op, joined, results, options);
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CAPTURE(i);
      CHECK(same_bits(found[i], expected[i]));
    }
  };
  for (const int threads : {1, 2, 3, 7})
    for (const Guard guard : {Guard::kAfter, Guard::kBefore})
      check({.threads = threads, .guard = guard});
  // On the first input, and on the other one of the result's shape.
  std::vector<std::size_t> places = {joined.size() - 1};
  if (second > 0) places.push_back(norm_inputs.size() - 1 - second);
  for (const std::size_t earlier : places)
    check({.threads = 3, .in_place = true, .earlier = earlier, .placed = own_outputs});
}

}  // namespace

TEST_CASE("conv2d: a batch norm and its activation of the input, at the edges of memory") {
  if (!can_run()) return;
  const Variable strassen("PYCNN_STRASSEN", "1");
  std::mt19937 random(31);
  for (const Case& c : kPointwise) {
    CAPTURE(c.text());
    const Shape channels = {c.ic};
    std::vector<Values> norm_inputs = {reals(c.input(), random)};
    for (int i = 0; i < 3; ++i) norm_inputs.push_back(reals(channels, random));
    const Values weight = reals(c.weight(), random), bias = reals({c.oc}, random);
    for (const auto kind : {ActivationKind::kIdentity, ActivationKind::kRelu,
                            ActivationKind::kRelu6, ActivationKind::kLeakyRelu}) {
      ops::BatchNormApply norm;
      norm.epilogue = {.residual = false, .activation = kind, .slope = 0.125};
      check_joined(measured(c.forward()), {weight}, norm, norm_inputs, 0);
    }
    ops::BatchNormApply norm;
    norm.epilogue = {.residual = true, .activation = ActivationKind::kRelu};
    norm_inputs.push_back(reals(c.input(), random));
    check_joined(c.forward(), {weight, bias}, norm, norm_inputs, 4);
    for (int i = 0; i < 3; ++i) norm_inputs.push_back(reals(channels, random));
    check_joined(c.forward(), {weight, bias}, norm, norm_inputs, 4);
  }
}

TEST_CASE("conv2d_grad_input: a batch norm's gradient of the input, at the edges of memory") {
  if (!can_run()) return;
  const Variable strassen("PYCNN_STRASSEN", "1");
  std::mt19937 random(32);
  for (const Case& c : kPointwise) {
    CAPTURE(c.text());
    const Shape channels = {c.oc};
    const Values x = reals(c.output(), random), gradient = reals(c.output(), random);
    std::vector<Values> vectors;
    for (int i = 0; i < 5; ++i) vectors.push_back(reals(channels, random));
    const Values sums = reals({2, c.oc}, random), weight = reals(c.weight(), random);
    const auto& [scale, mean, inv_std, factor, offset] =
        std::tie(vectors[0], vectors[1], vectors[2], vectors[3], vectors[4]);
    check_joined(c.grad_input(), {weight}, ops::BatchNormTrainGrad{},
                 {x, scale, mean, inv_std, gradient, sums}, 4);
    for (const auto kind : {ActivationKind::kRelu, ActivationKind::kLeakyRelu})
      check_joined(c.grad_input(), {weight}, ops::BatchNormApplyGrad{kind, 0.125},
                   {x, scale, mean, inv_std, factor, offset, gradient, sums}, 6);
  }
}

TEST_CASE("conv2d: what is no batch norm of float32 is not taken") {
  if (!can_run()) return;
  const Variable strassen("PYCNN_STRASSEN", "1");
  const Case& c = kPointwise[0];
  std::mt19937 random(33);
  const std::vector<Values> inputs = {reals(c.input(), random), reals(c.weight(), random)};
  Kernel kernel = kernel_for(c.forward(), inputs, 2);
  REQUIRE(static_cast<bool>(kernel.absorb));
  const std::size_t scratch = kernel.scratch_bytes;
  const auto plan = kernel.plan;
  const auto takes = [&](const Op& op, std::vector<TensorSpec> specs, bool is_reader = false,
                         int place = 0) {
    const std::vector<TensorSpec> results = {{c.input(), specs[0].dtype}};
    return kernel.absorb(kernel, c.forward(), {&op, specs, results, is_reader, place});
  };
  const TensorSpec image{c.input(), DType::kFloat32}, vector{{c.ic}, DType::kFloat32};
  const TensorSpec half{c.input(), DType::kBFloat16};
  CHECK_FALSE(takes(ops::BatchNormApply{}, {half, vector, vector, vector}));
  CHECK_FALSE(takes(ops::Activation{}, {image}));
  CHECK_FALSE(takes(ops::BatchNormApply{}, {image, vector, vector, vector}, true));
  CHECK_FALSE(takes(ops::BatchNormApply{}, {image, vector, vector, vector}, false, 1));
  // Sums that are not known yet need all pixels at once.
  CHECK_FALSE(takes(ops::BatchNormTrainGrad{}, {image, vector, vector, vector, image}));
  CHECK(kernel.scratch_bytes == scratch);
  CHECK(kernel.plan == plan);
  CHECK(takes(ops::BatchNormApply{}, {image, vector, vector, vector}));
  // Only one.
  CHECK_FALSE(takes(ops::BatchNormApply{}, {image, vector, vector, vector}));
}
