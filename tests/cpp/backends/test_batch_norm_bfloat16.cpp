#include "rounded_results.h"

// Batch norm on images of bfloat16: the bits of the float32 kernel on the widened images, rounded.

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

// A whole number of vectors and not, fewer rows than are taken at a time, several blocks and
// chunks.
const std::vector<std::int64_t> kChannels = {1, 3, 17, 31, 33, 64, 100};
const std::vector<std::int64_t> kRows = {1, 2, 5, 43, 700};

HostTensor image(std::int64_t rows, std::int64_t channels, std::uint64_t seed) {
  return odd_bfloat16({rows, channels}, seed);
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
      in.insert(in.end(), {vector(6, -2, 2), vector(7, 0.5, 2.0), vector(8, -2, 2)});
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
