#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"

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
    for (const Shape& shape : {Shape{2, 7, 6, 8}, Shape{1, 5, 9, 3}, Shape{3, 24, 23, 24},
                               Shape{2, 4, 5, 70}, Shape{0, 7, 6, 8}}) {
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

// As what is flattened behind it in PyTorch's order, and the gradient of that.
TEST_CASE("cuda kernels: a fused max pool writes planes, its gradient reads them") {
  const auto transpose = [](const ops::Transpose& op, const HostTensor& x) {
    return run_kernel(op, {x})[0];
  };
  const ops::Transpose to_planes{{0, 3, 1, 2}}, to_pixels{{0, 2, 3, 1}};
  for (const DType dtype : kImages)
    for (const std::int64_t c : {5, 16}) {
      const HostTensor x = random_tensor({2, 9, 8, c}, 1, -3, 3, dtype);
      const HostTensor mean = random_tensor({c}, 2), factor = random_tensor({c}, 3),
                       offset = random_tensor({c}, 4), scale = random_tensor({c}, 5),
                       inv_std = random_tensor({c}, 6, 0.5, 2);
      const ops::BatchNormMaxPool op{{{3, 3}, {2, 2}, {1, 1, 1, 1}}};
      const Tensors in = {x, mean, factor, offset};
      const std::vector<TensorSpec> pixels = op.infer(specs_of(in));
      Kernel kernel;
      const Tensors expected = run_on_device(op, in, pixels, {}, kernel);
      for (const int device : {0, other_device()}) {
        OnDevice how{device};
        how.pinned = "";
        const std::vector<TensorSpec> planes = to_planes.infer(pixels);
        how.absorbed = {{to_planes, pixels, planes}};
        CHECK(same_bits(run_on_device(op, in, planes, how, kernel),
                        {transpose(to_planes, expected[0])}));
        const ops::BatchNormMaxPoolGrad grad{op};
        const HostTensor g = random_tensor(pixels[0].shape, 7, -2, 2, dtype);
        Tensors inputs = {x, scale, mean, inv_std, factor, offset, g};
        const std::vector<TensorSpec> results = grad.infer(specs_of(inputs));
        const Tensors gradients = run_on_device(grad, inputs, results, {}, kernel);
        inputs[6] = transpose(to_planes, g);
        how.absorbed = {{to_pixels, planes, pixels, false, 6}};
        CHECK(same_bits(run_on_device(grad, inputs, results, how, kernel), gradients));
      }
    }
}

TEST_CASE("cuda kernels: NaN wins a window") {
  HostTensor x = random_tensor({1, 4, 4, 4}, 1);
  x.set(5, kNaN);
  x.set(21, -kInfinity);
  check(ops::MaxPool2d{}, {x});
  check(ops::GlobalMaxPool2d{}, {x});
}

// Of more pixels than lanes and fewer, with ties in other lanes: the first pixel has the gradient.
TEST_CASE("cuda kernels: the largest of an image's pixels") {
  for (const DType dtype : kImages)
    for (const Shape& shape : {Shape{2, 20, 15, 8}, Shape{1, 33, 9, 40}, Shape{3, 17, 18, 5},
                               Shape{2, 1, 3, 72}, Shape{1, 1, 1, 4}, Shape{0, 3, 3, 8}}) {
      CAPTURE(to_string(shape));
      HostTensor x = random_integers(shape, 1, 3, dtype);
      const HostTensor g = random_tensor({shape[0], shape[3]}, 2, 1, 2, dtype);
      check_anywhere(ops::GlobalMaxPool2d{}, {x});
      check_anywhere(ops::GlobalMaxPool2dGrad{}, {x, g});
      const auto channels = static_cast<std::size_t>(shape[3]);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (i % channels == 1) x.set(i, -kInfinity);  // all of a channel
        if (i % channels == 2 && i / channels % 7 > 2) x.set(i, kNaN);
        if (i % channels == 3 && i / channels % 9 > 1) x.set(i, kInfinity);
      }
      check_anywhere(ops::GlobalMaxPool2d{}, {x});
      check_anywhere(ops::GlobalMaxPool2dGrad{}, {x, g});
    }
}

// The two ops round the pool's gradient to 16 bits, the fused one does not.
TEST_CASE("cuda programs: steps whose max pools normalise what they read") {
  const Results inputs = {{"x", test::random_tensor({3, 14, 13, 3}, 1)}, {"y", test::labels(3, 4)}};
  for (const ActivationKind kind : {ActivationKind::kRelu, ActivationKind::kRelu6,
                                    ActivationKind::kLeakyRelu, ActivationKind::kIdentity}) {
    Graph graph;
    test::Layers net{graph};
    Symbol h = graph.input("x", {{3, 14, 13, 3}});
    for (const std::string name : {"a", "b"}) {
      h = net.norm(net.conv(h, name + ".conv", 16, 3, false), name + ".bn");
      if (kind != ActivationKind::kIdentity) h = graph.add(ops::Activation{kind, 0.2}, {h});
      h = graph.add(ops::MaxPool2d{{3, 3}, {2, 2}, {1, 1, 1, 1}}, {h}, name + ".pool");
    }
    h = net.dense(graph.add(ops::GlobalAvgPool2d{}, {h}), "fc", 4);
    const Symbol y = graph.input("y", {{3}, DType::kInt64});
    graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {h, y}));
    for (const DType dtype : kImages) {
      CAPTURE(activation_name(kind));
      CAPTURE(short_name(dtype));
      CompileOptions options = options_for("cuda");
      options.dtype = dtype;
      CompileOptions apart = options, elsewhere = options;
      apart.variants = {{"max_pool2d_grad", "reference"}};
      elsewhere.device = Device::cuda(other_device());
      const test::Compiled fused(graph, options), stored(graph, apart), backwards(graph, elsewhere);
      CHECK(fused.program.graph_text().find("batch_norm_max_pool_grad(") != std::string::npos);
      CHECK(stored.program.graph_text().find("batch_norm_max_pool") == std::string::npos);
      const double error = dtype == DType::kFloat32 ? 1e-5 : dtype == DType::kFloat16 ? 2e-3 : 5e-2;
      for (int step = 0; step < 3; ++step) {
        const Results got = fused.program.run(inputs), wanted = stored.program.run(inputs);
        CHECK(test::same_bits(got, backwards.program.run(inputs)));
        if (step == 0) CHECK(test::same_bits(got.at("loss"), wanted.at("loss")));
        CHECK(test::difference(got.at("loss"), wanted.at("loss")) < error);
      }
      CHECK(test::same_bits(fused.variables, backwards.variables));
      for (const auto& [name, tensor] : stored.variables) {
        CAPTURE(name);
        if (tensor.dtype() == DType::kFloat32)
          CHECK(test::difference(fused.variables.at(name), tensor) < error);
      }
    }
  }
}
