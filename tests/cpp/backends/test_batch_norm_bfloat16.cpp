#include "kernel_harness.h"

// Batch norm on images of bfloat16: the bits of the float32 kernel on the widened images, rounded.

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

// A whole number of vectors and not, fewer rows than are taken at a time, several blocks and
// chunks.
const std::vector<std::int64_t> kChannels = {1, 3, 17, 31, 33, 64, 100};
const std::vector<std::int64_t> kRows = {1, 2, 5, 43, 700};

HostTensor to_type(const HostTensor& from, DType dtype) {
  HostTensor to(TensorSpec{from.spec.shape, dtype});
  for (std::size_t i = 0; i < from.size(); ++i) to.set(i, from[i]);
  return to;
}

// Numbers of bfloat16, one of them of each kind that is not like the others.
HostTensor image(std::int64_t rows, std::int64_t channels, std::uint64_t seed) {
  HostTensor tensor = random_tensor({rows, channels}, seed, -4, 4, DType::kBFloat16);
  const double odd[] = {-0.0, 0x1p-140, -0x1p-133, kInfinity, kNaN, -kInfinity};
  for (std::size_t i = 0; i < 6; ++i)
    if (tensor.size() > 200) tensor.set((seed % 5 + 1) * 7 + 29 * i, odd[i]);
  return tensor;
}

// Which NaN comes out is not promised: it is up to the order of the operands of a sum.
bool same_numbers(const std::vector<HostTensor>& a, const std::vector<HostTensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const HostTensor& x, const HostTensor& y) {
                      if (x.spec != y.spec) return false;
                      for (std::size_t i = 0; i < x.size(); ++i) {
                        const double p = x[i], q = y[i];
                        const bool same = p == q && std::signbit(p) == std::signbit(q);
                        if (!same && !(std::isnan(p) && std::isnan(q))) return false;
                      }
                      return true;
                    });
}

// Inputs of bfloat16 are images; other results than these are compared as they are.
template <class OpType>
void check_rounded(const OpType& op, const std::vector<HostTensor>& inputs) {
  std::vector<HostTensor> wide;
  for (const HostTensor& input : inputs) wide.push_back(to_type(input, DType::kFloat32));
  int ran = 0;
  for (const std::string& variant : cpu::variants(op)) {
    CAPTURE(variant);
    KernelRun run;
    run.variant = variant;
    std::vector<HostTensor> expected;
    Kernel kernel;
    try {
      expected = run_kernel(op, wide, run);
      (void)run_kernel(op, inputs, run, &kernel);
    } catch (const UnsupportedError&) {
      continue;
    }
    ++ran;
    const std::vector<TensorSpec> results = op.infer(specs_of(inputs));
    for (std::size_t i = 0; i < results.size(); ++i)
      expected[i] = to_type(expected[i], results[i].dtype);
    for (const int threads : {1, 2, 3})
      for (const Guard guard : {Guard::kAfter, Guard::kBefore}) {
        run.threads = threads;
        run.guard = guard;
        CHECK(same_numbers(run_kernel(op, inputs, run), expected));
        for (std::size_t i = 0; i < inputs.size(); ++i) {
          if ((kernel.in_place[0] >> i & 1u) == 0) continue;
          CAPTURE(i);
          run.alias_output = 0, run.alias_input = static_cast<int>(i);
          CHECK(same_numbers(run_kernel(op, inputs, run), expected));
          run.alias_output = run.alias_input = -1;
        }
      }
  }
  CHECK(ran > 0);
}

// Calls f(rows, channels, vector), where vector(seed, low, high) is one number a channel.
template <class F>
void for_sizes(const F& f) {
  for (const std::int64_t channels : kChannels)
    for (const std::int64_t rows : kRows) {
      CAPTURE(channels);
      CAPTURE(rows);
      f(rows, channels, [&](std::uint64_t seed, double low, double high) {
        return random_tensor({channels}, seed, low, high);
      });
    }
}

}  // namespace

TEST_CASE("batch norm of bfloat16 has the bits of float32, rounded") {
  for_sizes([](std::int64_t rows, std::int64_t channels, auto vector) {
    const std::vector<HostTensor> in = {image(rows, channels, 1), vector(2, 0.5, 2.0),
                                        vector(3, -2, 2), vector(4, -2, 2), vector(5, 0.5, 2.0)};
    if (rows > 1) check_rounded(ops::BatchNormTrain{1e-3, 0.3}, in);
    if (rows > 1) check_rounded(ops::BatchNormStatistics{1e-3, 0.3}, in);
    check_rounded(ops::BatchNormInference{}, in);
  });
}

TEST_CASE("batch norm of bfloat16 that activates has the bits of float32, rounded") {
  for (const ActivationKind kind : {ActivationKind::kIdentity, ActivationKind::kRelu,
                                    ActivationKind::kRelu6, ActivationKind::kLeakyRelu})
    for_sizes([&](std::int64_t rows, std::int64_t channels, auto vector) {
      CAPTURE(activation_name(kind));
      std::vector<HostTensor> in = {image(rows, channels, 1), vector(2, -2, 2), vector(3, 0.5, 2.0),
                                    vector(4, -2, 2)};
      check_rounded(ops::BatchNormApply{{false, kind, 0.3}}, in);
      in.push_back(image(rows, channels, 5));
      check_rounded(ops::BatchNormApply{{true, kind, 0.3}}, in);
    });
}

TEST_CASE("gradients of batch norm in bfloat16 have the bits of float32, rounded") {
  for_sizes([](std::int64_t rows, std::int64_t channels, auto vector) {
    // input; scale; mean; inv_std or variance
    std::vector<HostTensor> in = {image(rows, channels, 1), vector(2, -2, 2), vector(3, -2, 2),
                                  vector(4, 0.5, 2.0)};
    std::vector<HostTensor> gated = in;
    in.push_back(image(rows, channels, 7));
    check_rounded(ops::BatchNormTrainGrad{}, in);
    check_rounded(ops::BatchNormInferenceGrad{}, in);
    // factor; offset; grad_output
    gated.insert(gated.end(), {vector(5, 0.5, 2.0), vector(6, -2, 2), image(rows, channels, 8)});
    for (const ActivationKind kind : {ActivationKind::kIdentity, ActivationKind::kRelu,
                                      ActivationKind::kRelu6, ActivationKind::kLeakyRelu}) {
      CAPTURE(activation_name(kind));
      check_rounded(ops::BatchNormApplyGrad{kind, 0.3}, gated);
    }
  });
}
