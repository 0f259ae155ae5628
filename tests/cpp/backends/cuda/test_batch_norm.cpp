#include "backends/cuda/check_kernel.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

TEST_CASE("cuda kernels: local response normalisation") {
  for (const DType dtype : kImages)
    for (const std::int64_t channels : {8, 9, 24})
      for (const std::int64_t size : {1, 2, 5}) {
        const Shape shape = {2, 3, 2, channels};
        const HostTensor x = random_tensor(shape, 1, -2, 2, dtype);
        const ops::LocalResponseNorm op{size, 0.3, channels == 8 ? 0.6 : 0.75, 2.0};
        check(op, {x});
        check(ops::LocalResponseNormGrad{op}, {x, random_tensor(shape, 2, -2, 2, dtype)});
      }
}

TEST_CASE("cuda kernels: batch norm") {
  for (const DType dtype : kImages)
    for (const Shape& shape : {Shape{2, 3, 3, 5}, Shape{3, 33}, Shape{1100, 8}}) {
      const std::int64_t c = shape.back();
      const HostTensor x = random_tensor(shape, 1, -1, 3, dtype);
      const HostTensor g = random_tensor(shape, 2, -2, 2, dtype);
      const HostTensor residual = random_tensor(shape, 3, -2, 2, dtype);
      const auto vector = [&](std::uint64_t seed, double low = -2.0) {
        return random_tensor({c}, seed, low, 2.0);
      };
      const HostTensor scale = vector(4), shift = vector(5), mean = vector(6), var = vector(7, 0.5);
      check(ops::BatchNormTrain{1e-3, 0.2}, {x, scale, shift, mean, var});
      check(ops::BatchNormStatistics{1e-3, 0.2}, {x, scale, shift, mean, var});
      check(ops::BatchNormInference{1e-3}, {x, scale, shift, mean, var});
      check(ops::BatchNormTrainGrad{}, {x, scale, mean, var, g});
      check(ops::BatchNormInferenceGrad{1e-3}, {x, scale, mean, var, g});
      for (const ActivationKind kind : {ActivationKind::kIdentity, ActivationKind::kRelu,
                                        ActivationKind::kRelu6, ActivationKind::kLeakyRelu}) {
        check(ops::BatchNormApply{{false, kind, 0.1}}, {x, mean, scale, shift});
        check(ops::BatchNormApply{{true, kind, 0.1}}, {x, mean, scale, shift, residual});
        check(ops::BatchNormApply{{true, kind, 0.1}},
              {x, mean, scale, shift, residual, var, shift, mean});
        check(ops::BatchNormApplyGrad{kind, 0.1}, {x, scale, mean, var, scale, shift, g});
        HostTensor odd = x;
        odd.set(odd.size() / 2, kNaN);
        check(ops::BatchNormApplyGrad{kind, 0.1}, {odd, scale, mean, var, scale, shift, g});
      }
    }
  check(ops::FoldBatchNorm{1e-3},
        {random_tensor({5, 3, 2, 4}, 1), random_tensor({5}, 2), random_tensor({5}, 3),
         random_tensor({5}, 4), random_tensor({5}, 5, 0.5), random_tensor({5}, 6)});
  check(ops::FoldBatchNorm{1e-3},
        {random_tensor({5, 7}, 1), random_tensor({5}, 2), random_tensor({5}, 3),
         random_tensor({5}, 4), random_tensor({5}, 5, 0.5)});
}

TEST_CASE("cuda kernels: statistics of values far from zero") {
  const HostTensor x = random_tensor({700, 4}, 1, 4000.0, 4001.0);
  const HostTensor one(Shape{4}, {1, 1, 1, 1}), zero(Shape{4}, {0, 0, 0, 0});
  Tensors wide;
  for (const HostTensor& input : {x, one, zero, zero, one}) wide.push_back(to_float64(input));
  const ops::BatchNormTrain op;
  const Tensors expected = run_kernel(op, wide, {"reference"});
  Kernel kernel;
  const Tensors actual = run_on_device(op, {x, one, zero, zero, one},
                                       op.infer(specs_of({x, one, zero, zero, one})), {}, kernel);
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(std::abs(actual[0][i] - expected[0][i]) < 2e-5);
}
