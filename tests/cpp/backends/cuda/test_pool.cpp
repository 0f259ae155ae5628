#include "backends/cuda/check_kernel.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

TEST_CASE("cuda kernels: pools and their gradients") {
  for (const DType dtype : kImages)
    for (const Shape& shape : {Shape{2, 7, 6, 8}, Shape{1, 5, 9, 3}, Shape{3, 4, 4, 16}}) {
      const HostTensor x = random_integers(shape, 1, 9, dtype);  // with ties
      const auto gradient_of = [&](const auto& op) {
        return random_tensor(op.infer(specs_of({x}))[0].shape, 2, -2, 2, dtype);
      };
      for (const ops::MaxPool2d& op :
           {ops::MaxPool2d{}, ops::MaxPool2d{{3, 3}, {2, 2}, {1, 1, 1, 1}},
            ops::MaxPool2d{{3, 2}, {1, 3}, {1, 0, 0, 1}, {1, 2}},
            ops::MaxPool2d{{3, 3}, {2, 2}, {0, 0, 0, 0}, {1, 1}, true},
            ops::MaxPool2d{{3, 3}, {1, 1}, {1, 1, 1, 1}},
            ops::MaxPool2d{{13, 20}, {3, 1}, {6, 6, 10, 10}}}) {  // more cells than a byte names
        check(op, {x});
        check(ops::MaxPool2dGrad{op}, {x, gradient_of(op)});
      }
      for (const bool count_padding : {true, false})
        for (const ops::AvgPool2d& op :
             {ops::AvgPool2d{{2, 2}, {2, 2}, {}, false, count_padding},
              ops::AvgPool2d{{3, 3}, {2, 1}, {1, 1, 1, 0}, true, count_padding}}) {
          check(op, {x});
          check(ops::AvgPool2dGrad{op, {shape[1], shape[2]}}, {gradient_of(op)});
        }
      for (const Pair size : {Pair{1, 1}, Pair{3, 2}, Pair{7, 11}}) {
        check(ops::AdaptiveAvgPool2d{size}, {x});
        check(ops::AdaptiveAvgPool2dGrad{{shape[1], shape[2]}},
              {gradient_of(ops::AdaptiveAvgPool2d{size})});
      }
      check(ops::GlobalAvgPool2d{}, {x});
      check(ops::GlobalAvgPool2dGrad{{shape[1], shape[2]}}, {gradient_of(ops::GlobalAvgPool2d{})});
      check(ops::GlobalMaxPool2d{}, {x});
      check(ops::GlobalMaxPool2dGrad{}, {x, gradient_of(ops::GlobalMaxPool2d{})});
    }
}

// Numbers that every type holds exactly, so that windows have the same winners.
TEST_CASE("cuda kernels: max pools that normalise what they read") {
  for (const DType dtype : kImages)
    for (const Shape& shape :
         {Shape{2, 7, 6, 8}, Shape{1, 5, 9, 3}, Shape{3, 24, 23, 24}, Shape{2, 4, 5, 70}}) {
      const std::int64_t c = shape.back();
      const HostTensor x = random_integers(shape, 1, 4, dtype);
      const HostTensor scale = random_tensor({c}, 3), inv_std = random_tensor({c}, 4, 0.5, 2);
      const HostTensor mean = random_integers({c}, 5, 2), offset = random_integers({c}, 6, 2);
      HostTensor factor({{c}, DType::kFloat32});
      for (std::size_t i = 0; i < factor.size(); ++i) factor.set(i, i % 3 == 0 ? -1.0 : 0.5);
      for (const ActivationKind kind : {ActivationKind::kIdentity, ActivationKind::kRelu,
                                        ActivationKind::kRelu6, ActivationKind::kLeakyRelu})
        for (const ops::MaxPool2d& pool :
             {ops::MaxPool2d{}, ops::MaxPool2d{{3, 3}, {2, 2}, {1, 1, 1, 1}},
              ops::MaxPool2d{{3, 2}, {1, 3}, {1, 0, 0, 1}, {1, 2}},
              ops::MaxPool2d{{3, 3}, {2, 2}, {0, 0, 0, 0}, {1, 1}, true}}) {
          const ops::BatchNormMaxPool op{pool, kind, 0.25};
          const HostTensor g = random_integers(pool.infer(specs_of({x}))[0].shape, 2, 3, dtype);
          check(op, {x, mean, factor, offset});
          check(ops::BatchNormMaxPoolGrad{op}, {x, scale, mean, inv_std, factor, offset, g});
        }
    }
}

TEST_CASE("cuda kernels: a fused max pool has the bits of the two ops") {
  for (const DType dtype : kImages)
    for (const std::int64_t c : {5, 16}) {
      HostTensor x = random_tensor({2, 9, 8, c}, 1, -3, 3, dtype);
      x.set(5, kNaN), x.set(77, kInfinity), x.set(99, -kInfinity);
      const HostTensor mean = random_tensor({c}, 2), factor = random_tensor({c}, 3),
                       offset = random_tensor({c}, 4);
      const auto on_device = [](const auto& op, const Tensors& inputs) {
        Kernel kernel;
        return run_on_device(op, inputs, op.infer(specs_of(inputs)), {}, kernel);
      };
      const ops::BatchNormMaxPool op{{{3, 3}, {2, 2}, {1, 1, 1, 1}}};
      const Tensors between = on_device(ops::BatchNormApply{{false, op.activation, op.slope}},
                                        {x, mean, factor, offset});
      CHECK(same_bits(on_device(op, {x, mean, factor, offset}), on_device(op.pool, between)));
    }
  // Winners are bytes.
  const ops::BatchNormMaxPool many{{{13, 20}, {3, 1}, {6, 6, 10, 10}}};
  const TensorSpec vector{{8}, DType::kFloat32};
  const std::vector<TensorSpec> in = {{{1, 7, 6, 8}, DType::kFloat32}, vector, vector, vector};
  const std::vector<TensorSpec> out = many.infer(in);
  Problem problem;
  problem.inputs = in, problem.outputs = out;
  Selection selection;
  std::string refusal;
  CHECK_FALSE(cuda_module().select(0, many, problem, selection, refusal));
  CHECK(refusal.find("more than 254 taps") != std::string::npos);
}

TEST_CASE("cuda kernels: NaN wins a window") {
  HostTensor x = random_tensor({1, 4, 4, 4}, 1);
  x.set(5, kNaN);
  x.set(21, -kInfinity);
  check(ops::MaxPool2d{}, {x});
  check(ops::GlobalMaxPool2d{}, {x});
}
