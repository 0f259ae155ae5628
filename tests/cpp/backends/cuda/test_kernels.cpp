// The kernels of the CUDA module, run by the host, against the CPU's references in float64: their
// arithmetic of tiles, borders and counters, and their order of sums. What only a GPU shows (races
// within a step of a block, alignment of its accesses) is not seen here.
#include <array>

#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

HostTensor integers(const std::vector<std::int64_t>& values, DType dtype = DType::kInt64) {
  HostTensor tensor(TensorSpec{{static_cast<std::int64_t>(values.size())}, dtype});
  for (std::size_t i = 0; i < values.size(); ++i) tensor.set(i, static_cast<double>(values[i]));
  return tensor;
}

void check_weight_gradient(const ops::Conv2d& op, const HostTensor& input, const Shape& weight,
                           const HostTensor& grad_output, bool bias) {
  auto grad_weight = gradient_of<ops::Conv2dGradWeight>(op);
  grad_weight.kernel_size = {weight[1], weight[2]};
  grad_weight.bias = bias;
  check(grad_weight, {input, grad_output});
}

void check_conv(const ops::Conv2d& op, const Shape& input, const Shape& weight, bool bias,
                const std::vector<DType>& images = {std::begin(kImages), std::end(kImages)}) {
  for (const DType dtype : images) {
    Tensors forward = {random_tensor(input, 1, -2, 2, dtype), coarse(weight, 2)};
    if (bias) forward.push_back(random_tensor({weight[0]}, 3));
    check(op, forward);
    const Shape output = op.infer(specs_of({forward[0], forward[1]}))[0].shape;
    const HostTensor grad_output = random_tensor(output, 4, -2, 2, dtype);
    auto grad_input = gradient_of<ops::Conv2dGradInput>(op);
    grad_input.input_size = {input[1], input[2]};
    check(grad_input, {grad_output, forward[1]});
    for (const bool residual : {false, true})
      for (const bool relu : {false, true}) {
        if (!residual && !relu) continue;
        grad_input.finish = {residual, relu};
        Tensors finished = {grad_output, forward[1]};
        if (residual) finished.push_back(random_tensor(input, 5, -2, 2, dtype));
        if (relu) finished.push_back(random_tensor(input, 6, -2, 2, dtype));
        check(grad_input, finished);
      }
    check_weight_gradient(op, forward[0], weight, grad_output, bias);
  }
}

}  // namespace

TEST_CASE("cuda kernels: convolutions and their gradients") {
  check_conv({}, {1, 1, 1, 1}, {1, 1, 1, 1}, true);
  check_conv(conv({1, 1}, {1, 1, 1, 1}), {2, 7, 5, 3}, {5, 3, 3, 3}, false);
  check_conv(conv({2, 3}, {0, 2, 1, 0}), {2, 9, 11, 4}, {7, 3, 2, 4}, true);
  check_conv(conv({1, 2}, {2, 2, 3, 3}, {2, 3}), {1, 8, 9, 2}, {3, 3, 2, 2}, true);
  check_conv(conv({2, 2}, {1, 1, 1, 1}, {1, 1}, 3), {2, 6, 6, 6}, {9, 3, 3, 2}, true);
  check_conv(conv({1, 1}, {1, 1, 1, 1}, {1, 1}, 8), {1, 5, 6, 8}, {8, 3, 3, 1}, false);
  check_conv({}, {3, 9, 9, 70}, {66, 1, 1, 70}, true);  // over the border of a tile
  check_conv(conv({4, 4}, {1, 0, 0, 1}), {1, 13, 13, 3}, {4, 2, 2, 3},
             true);  // pixels that no window has
  check_conv(conv({1, 1}, {2, 2, 2, 2}), {2, 34, 33, 2}, {3, 5, 5, 2}, true);  // chunks of pixels
}

// Every tile, which has borders of its own, on shapes that are no multiple of any; channels that
// are and are not loaded by 16 bytes, narrow groups that are joined, taps that a stride leaves out.
TEST_CASE("cuda kernels: tiles of convolutions") {
  for (const char* const tf32 : {"0", "1"}) {
    const Variable precision("PYCNN_CUDA_TF32", tf32);
    std::vector<DType> images = {DType::kFloat32};  // the others know of no precision
    if (*tf32 == '0') images.assign(std::begin(kImages), std::end(kImages));
    for (const char* const tile : {"large", "medium", "small"}) {
      CAPTURE(tf32);
      CAPTURE(tile);
      const Variable named("PYCNN_CUDA_TILE", tile);
      check_conv(conv({2, 1}, {1, 1, 1, 1}), {2, 9, 10, 16}, {136, 3, 3, 16}, true, images);
      check_conv(conv({1, 2}, {0, 1, 2, 1}, {2, 1}), {1, 12, 13, 9}, {10, 3, 2, 9}, false, images);
      check_conv(conv({1, 1}, {1, 1, 1, 1}, {1, 1}, 4), {1, 7, 6, 16}, {32, 3, 3, 4}, true, images);
      check_conv(conv({3, 2}, {1, 0, 0, 1}, {1, 3}, 5), {2, 8, 9, 15}, {10, 2, 3, 3}, false,
                 images);
    }
  }
}

// Rows of windows that count as one tap: begin before, end behind and reach over both ends of an
// image's row.
TEST_CASE("cuda kernels: images of few channels") {
  for (const std::int64_t channels : {1, 3, 5})
    for (const std::int64_t images : {1, 3}) {
      check_conv(conv({2, 2}, {3, 3, 3, 3}), {images, 13, 12, channels}, {10, 7, 7, channels},
                 true);
      check_conv(conv({1, 3}, {0, 1, 4, 2}, {2, 1}), {images, 7, 3, channels}, {5, 2, 9, channels},
                 false);
    }
}

TEST_CASE("cuda kernels: sums of many chunks, joined groups and not") {
  const Variable named("PYCNN_CUDA_TILE", "large");
  check_conv(conv({1, 1}, {1, 1, 1, 1}, {1, 1}, 12), {1, 48, 47, 24}, {24, 1, 1, 2}, true);
  check_conv(conv({2, 2}, {1, 1, 1, 1}, {1, 1}, 2), {1, 5, 5, 144}, {140, 1, 1, 72}, true);
}

TEST_CASE("cuda kernels: results of many large tiles") {
  const HostTensor x = random_tensor({1, 94, 93, 8}, 1, -2, 2, DType::kBFloat16);
  check(ops::Conv2d{}, {x, coarse({512, 1, 1, 8}, 2)});
}

// The product with the bias' chunks, and what adds chunks where there are several.
TEST_CASE("cuda kernels: gradients of weights are two launches at most") {
  if (!is_emulated()) return;
  const auto launches = [](const auto& op, const Tensors& inputs) {
    Calls calls;
    Kernel kernel;
    run_on_device(op, inputs, op.infer(specs_of(inputs)), {}, kernel);
    return calls.count("launch");
  };
  const auto gradient = [&](std::int64_t size, bool bias) {
    ops::Conv2dGradWeight op;
    op.kernel_size = {1, 1};
    op.bias = bias;
    return launches(op,
                    {random_tensor({1, size, size, 2}, 1), random_tensor({1, size, size, 3}, 2)});
  };
  CHECK(gradient(16, true) == 1);
  CHECK(gradient(17, true) == 2);
  CHECK(gradient(17, false) == 1);
  CHECK(gradient(40, false) == 2);
  CHECK(gradient(40, true) == 2);
  CHECK(launches(ops::DenseGradWeight{true},
                 {random_tensor({9, 5}, 1), random_tensor({9, 4}, 2)}) == 1);
}

// As many chunks as are added by several threads.
TEST_CASE("cuda kernels: sums of more chunks than one thread adds") {
  for (const auto& [images, height, width] : {std::array{5, 64, 61}, {1, 302, 230}}) {
    const Shape input = {images, height, width, 1}, output = {images, height, width, 2};
    check_weight_gradient({}, random_tensor(input, 1), {2, 1, 1, 1}, random_tensor(output, 2),
                          true);
  }
}

TEST_CASE("cuda kernels: an empty batch") { check_conv({}, {0, 4, 4, 3}, {2, 3, 3, 3}, true); }

TEST_CASE("cuda kernels: what joins a convolution") {
  for (const DType dtype : kImages) {
    ops::Conv2d op;
    op.epilogue = {true, ActivationKind::kRelu, 0.0};
    check(op, {random_tensor({2, 5, 6, 4}, 1, -2, 2, dtype), coarse({6, 2, 2, 4}, 2),
               random_tensor({6}, 3), random_tensor({2, 4, 5, 6}, 4, -9, 9, dtype)});
    op.epilogue = {true, ActivationKind::kLeakyRelu, 0.2};
    check(op, {random_tensor({2, 5, 6, 4}, 5, -2, 2, dtype), coarse({6, 2, 2, 4}, 6),
               random_tensor({2, 4, 5, 6}, 7, -9, 9, dtype)});
    op.epilogue = {false, ActivationKind::kRelu, 0.0};
    HostTensor special = random_tensor({2, 5, 6, 4}, 8, -2, 2, dtype);
    special.set(50, kNaN);  // stays one
    check(op, {special, coarse({6, 2, 2, 4}, 9), random_tensor({6}, 10)});
  }
}

TEST_CASE("cuda kernels: dense layers") {
  for (const DType dtype : kImages)
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 17}, Shape{2, 3, 65}, Shape{130, 33}}) {
      const std::int64_t inputs = shape.back();
      const HostTensor x = random_tensor(shape, 1, -2, 2, dtype), w = coarse({71, inputs}, 2);
      Shape out = shape;
      out.back() = 71;
      const HostTensor g = random_tensor(out, 3, -2, 2, dtype);
      check(ops::Dense{}, {x, w});
      ops::Dense tanh;
      tanh.epilogue.activation = ActivationKind::kRelu6;
      check(tanh, {x, w, random_tensor({71}, 4)});
      // What a library joins, too.
      for (const ActivationKind kind : {ActivationKind::kIdentity, ActivationKind::kRelu})
        for (const bool residual : {false, true}) {
          ops::Dense joined;
          joined.epilogue = {residual, kind, 0.0};
          HostTensor special = x;
          special.set(0, kNaN);  // stays one
          Tensors inputs_of{residual ? x : special, w, random_tensor({71}, 5)};
          if (residual) inputs_of.push_back(random_tensor(out, 6, -9, 9, dtype));
          check(joined, inputs_of);
        }
      check(ops::DenseGradInput{}, {g, w});
      check(ops::DenseGradWeight{true}, {x, g});
      check(ops::DenseGradWeight{false}, {x, g});
    }
}

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
        check(ops::BatchNormApplyGrad{kind, 0.1}, {x, scale, mean, var, scale, shift, g});
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

TEST_CASE("cuda kernels: element by element") {
  for (const DType dtype : kImages)
    for (const std::int64_t n : {0, 1, 5, 8, 31, 2049}) {
      const HostTensor x = random_tensor({n}, 1, -8, 8, dtype);
      const HostTensor y = random_tensor({n}, 2, -2, 2, dtype);
      for (const ActivationKind kind :
           {ActivationKind::kIdentity, ActivationKind::kRelu, ActivationKind::kRelu6,
            ActivationKind::kLeakyRelu, ActivationKind::kSigmoid, ActivationKind::kTanh,
            ActivationKind::kScaledTanh}) {
        CAPTURE(activation_name(kind));
        check(ops::Activation{kind, 0.1}, {x});
        check(ops::ActivationGrad{kind, 0.1}, {x, y});
      }
      check(ops::Add{}, {x, y});
      check(ops::Subtract{}, {x, y});
      check(ops::Multiply{}, {x, y});
      check(ops::Affine{1.5, -0.25}, {x});
      check(ops::Cast{DType::kFloat32}, {x});
      for (const double p : {0.0, 0.3, 0.75})
        check(ops::DropoutTrain{p, -77}, {y, integers({123456789012345}), integers({9})});
    }
  HostTensor special(Shape{5}, {kNaN, kInfinity, -kInfinity, 0.0, -3.0});
  check(ops::Activation{ActivationKind::kRelu}, {special});
  check(ops::Activation{ActivationKind::kRelu6}, {special});
  check(ops::Activation{ActivationKind::kSigmoid}, {special});
}

TEST_CASE("cuda kernels: casts and dropout of parts of larger images") {
  for (const DType dtype : kImages)
    for (const std::int64_t channels : {1, 5, 12, 16}) {
      const HostTensor x = random_tensor({2, 3, 5, channels}, 1, -8, 8, dtype);
      for (const DType to : kImages) check(ops::Cast{to}, {x});
      const Tensors inputs = {x, integers({123456789012345}), integers({9})};
      const ops::DropoutTrain dropout{0.3, -77};
      check(dropout, inputs);
      Kernel kernel;
      const ops::Cast cast{DType::kBFloat16};
      for (const auto& [op, given] :
           {std::pair<Op, Tensors>{cast, {x}}, std::pair<Op, Tensors>{dropout, inputs}}) {
        run_on_device(op, given, infer(op, specs_of(given)), {}, kernel);
        CHECK(kernel.strided_inputs == 1u);
        CHECK(kernel.strided_outputs == 1u);
      }
    }
}

TEST_CASE("cuda kernels: a cast to bfloat16 rounds as the CPU's does") {
  HostTensor x = random_tensor({4001}, 1, -3, 3);
  x.set(0, kNaN);
  x.set(1, kInfinity);
  x.set(2, 0x1.01p0);  // a tie, to even
  x.set(3, 0x1.03p0);
  Kernel kernel;
  x.set(4, 0x1.006p0);  // ties of float16
  x.set(5, 0x1.002p0);
  x.set(6, 65519.0);
  x.set(7, 65520.0);  // infinity there
  x.set(8, 0x1.8p-24);
  x.set(9, 0x1p-25);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    const ops::Cast op{dtype}, back{DType::kFloat32};
    const Tensors narrow = run_on_device(op, {x}, op.infer(specs_of({x})), {}, kernel);
    const Tensors expected = run_kernel(op, {x}, {"reference"});
    for (std::size_t i = 1; i < x.size(); ++i)
      CHECK(narrow[0].as<std::uint16_t>()[i] == expected[0].as<std::uint16_t>()[i]);
    CHECK(std::isnan(narrow[0][0]));  // which one is the device's affair
    const std::vector<TensorSpec> wide = {x.spec};
    CHECK(same_bits(run_on_device(back, expected, wide, {}, kernel),
                    run_kernel(back, expected, {"reference"})));
  }
}

TEST_CASE("cuda kernels: broadcasting") {
  for (const DType dtype : kImages) {
    const HostTensor a = random_tensor({2, 3, 1, 5}, 1, -2, 2, dtype);
    const HostTensor b = random_tensor({3, 4, 1}, 2, -2, 2, dtype);
    check(ops::Add{}, {a, b});
    check(ops::Subtract{}, {b, a});
    check(ops::Multiply{}, {a, random_tensor({}, 3, -2, 2, dtype)});
    check(ops::Broadcast{{2, 2, 3, 4, 5}}, {random_tensor({3, 1, 5}, 4, -2, 2, dtype)});
  }
}

TEST_CASE("cuda kernels: images to numbers") {
  HostTensor bytes(TensorSpec{{2, 3, 3, 3}, DType::kUInt8});
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes.set(i, static_cast<double>(i * 37 % 256));
  check(ops::NormalizeImage{1.0 / 255, {0.4, 0.5, 0.6}, {0.2, 0.25, 0.3}}, {bytes});
  check(ops::NormalizeImage{1.0 / 255, {0.4}, {}}, {bytes});
  check(ops::NormalizeImage{2.0, {}, {0.3}}, {random_tensor({5, 7}, 1)});
  // As arguments of a kernel, and from a table in memory.
  for (const std::int64_t channels : {16, 17, 40}) {
    CAPTURE(channels);
    ops::NormalizeImage norm{1.0 / 255, {}, {}};
    for (std::int64_t c = 0; c < channels; ++c) norm.mean.push_back(0.01 * double(c));
    const Shape shape = {2, 3, 5, channels};
    check(norm, {random_integers(shape, 1, 100, DType::kUInt8)});
    for (std::int64_t c = 0; c < channels; ++c) norm.std.push_back(0.2 + 0.01 * double(c));
    check(norm, {random_tensor(shape, 1)});
    norm.mean = {0.4};
    check(norm, {random_tensor(shape, 2)});
  }
}

TEST_CASE("cuda kernels: softmax, losses and ranks") {
  for (const std::int64_t classes : {1, 3, 10, 300}) {
    const HostTensor x = random_tensor({5, classes}, 1, -9, 9);
    const HostTensor g = random_tensor({5, classes}, 2);
    check(ops::Softmax{}, {x});
    check(ops::LogSoftmax{}, {x});
    check(ops::SoftmaxGrad{}, {random_tensor({5, classes}, 3, 0, 1), g});
    check(ops::LogSoftmaxGrad{}, {random_tensor({5, classes}, 3, -9, 0), g});
    const HostTensor labels = integers({0, classes - 1, classes / 2, classes / 3, 0});
    const HostTensor soft = random_tensor({5, classes}, 4, 0, 1);
    const HostTensor grad_loss(Shape{}, {0.7});
    for (const double smoothing : {0.0, 0.1})
      for (const HostTensor& target :
           {labels, integers({0, 0, classes - 1, 0, 0}, DType::kInt32), soft}) {
        check(ops::SoftmaxCrossEntropy{smoothing}, {x, target});
        check(ops::SoftmaxCrossEntropyGrad{smoothing}, {x, target, grad_loss});
      }
    for (const std::int64_t k : {1, 2, 5})
      if (k <= classes) check(ops::TopKCorrect{k}, {random_integers({5, classes}, 5, 2), labels});
    check(ops::MeanSquaredError{}, {x, g});
    check(ops::MeanSquaredErrorGrad{}, {x, g, grad_loss});
  }
}

TEST_CASE("cuda kernels: labels that are no class make the loss NaN") {
  check(ops::SoftmaxCrossEntropy{}, {random_tensor({2, 4}, 1), integers({1, 4})});
  check(ops::TopKCorrect{1}, {random_tensor({2, 4}, 1), integers({-1, 4})});
}

TEST_CASE("cuda kernels: ranks among many classes, some of which are no numbers") {
  for (const std::int64_t classes : {32, 33, 300, 1000}) {
    HostTensor scores = random_integers({6, classes}, 5, 3);
    const auto at = [&](std::int64_t row, std::int64_t c) {
      return static_cast<std::size_t>(row * classes + c);
    };
    scores.set(at(2, 7), NAN);
    scores.set(at(3, 8), NAN);
    const HostTensor labels = integers({-1, classes, 7, 9, 0, classes - 1});
    // The rank of the last row's label, and those around it.
    std::int64_t rank = 0;
    for (std::int64_t c = 0; c + 1 < classes; ++c)
      rank += scores[at(5, c)] >= scores[at(5, classes - 1)] ? 1 : 0;
    for (const std::int64_t k : {std::int64_t{1}, rank, rank + 1, classes})
      if (k > 0) check(ops::TopKCorrect{k}, {scores, labels});
  }
}

// One thread for each row would read one class after the other.
TEST_CASE("cuda kernels: a row of many classes has threads of its own") {
  if (!is_emulated()) return;
  const auto launches = [](std::int64_t classes) {
    const Calls calls;
    Kernel kernel;
    const Tensors inputs = {random_tensor({3, classes}, 1), integers({0, 1, 2})};
    const ops::TopKCorrect op{1};
    run_on_device(op, inputs, op.infer(specs_of(inputs)), {}, kernel);
    return calls.count("launch");
  };
  CHECK(launches(10) == 1);
  CHECK(launches(1000) == 2);
}

TEST_CASE("cuda kernels: optimizers") {
  for (const std::int64_t n : {1, 3, 1030}) {
    const HostTensor p = random_tensor({n}, 1), g = random_tensor({n}, 2), rate(Shape{1}, {0.03}),
                     v = random_tensor({n}, 3), positive = random_tensor({n}, 4, 0.1, 2.0),
                     factor(Shape{}, {0.4});
    const HostTensor step = integers({12});
    constexpr std::size_t kRate = 2;
    check(ops::SgdUpdate{}, {p, g, rate}, kRate);
    check(ops::SgdUpdate{0.0, false, 0.01, 0.5, true}, {p, g, rate, factor}, kRate);
    check(ops::SgdUpdate{0.9, false, 0.01}, {p, g, rate, v}, kRate);
    check(ops::SgdUpdate{0.9, true, 0.0, 2.0, true}, {p, g, rate, v, factor}, kRate);
    check(ops::AdamUpdate{}, {p, g, rate, step, v, positive}, kRate);
    check(ops::AdamUpdate{0.8, 0.9, 1e-5, 0.1, true, 0.5, true},
          {p, g, rate, step, v, positive, factor}, kRate);
    const HostTensor skip(Shape{}, {-1.0});
    HostTensor lost = g;
    lost.set(0, kNaN);
    check(ops::SgdUpdate{0.0, false, 0.01, 0.5, true}, {p, lost, rate, skip}, kRate);
    check(ops::SgdUpdate{0.9, true, 0.01, 2.0, true}, {p, lost, rate, v, skip}, kRate);
    check(ops::AdamUpdate{0.8, 0.9, 1e-5, 0.1, true, 0.5, true},
          {p, lost, rate, step, v, positive, skip}, kRate);
    for (const HostTensor& each : {skip, factor}) {
      check(ops::Commit{}, {g, p, each});
      check(ops::Commit{}, {step, integers({11}), each});
    }
    check(ops::EmaUpdate{0.99}, {p, g, step});
    check(ops::EmaUpdate{0.2}, {p, g, step});
    check(ops::ClipFactor{1.0}, {p, random_tensor({5000}, 5), g});
    check(ops::ClipFactor{1e9}, {p});
    check(ops::ClipFactor{kInfinity}, {p, g});
  }
  for (const double norm : {0.0, 8.0, 1e6, kInfinity, kNaN})
    for (const double scale : {0x1p-24, 1024.0, 0x1p24})
      for (const std::int64_t good_steps : {0, 9})
        check(ops::LossScale{10, 1.0},
              {HostTensor(Shape{}, {norm}), HostTensor(Shape{}, {scale}), integers({good_steps})});
  Kernel kernel;
  const Tensors next = run_on_device(ops::Increment{}, {integers({41})},
                                     {TensorSpec{{1}, DType::kInt64}}, {}, kernel);
  CHECK(next[0].as<std::int64_t>()[0] == 42);
}

TEST_CASE("cuda kernels: moving data") {
  for (const DType dtype : kImages) {
    const HostTensor x = random_tensor({2, 3, 4, 5}, 1, -2, 2, dtype);
    check(ops::Transpose{{0, 3, 1, 2}}, {x});
    check(ops::Slice{{0, 1, 2, 1}, {2, 2, 1, -1}}, {x});
    check(ops::Pad{{0, 1, 2, 0}, {1, 0, 3, 0}, 0.5}, {x});
    check(ops::Concat{-1}, {x, random_tensor({2, 3, 4, 1}, 2, -2, 2, dtype), x});
    check(ops::Concat{1}, {x, random_tensor({2, 2, 4, 5}, 2, -2, 2, dtype)});
    // By 16 bytes, as far as the places of both sides are multiples of these.
    for (const std::int64_t channels : {16, 12, 6}) {
      const HostTensor wide = random_tensor({2, 3, 2, channels}, 3, -2, 2, dtype);
      check(ops::Transpose{{1, 0, 2, 3}}, {wide});
      check(ops::Slice{{0, 1, 0, 4}, {2, 2, 2, channels - 4}}, {wide});
      check(ops::Slice{{0, 0, 0, 1}, {2, 3, 2, 4}}, {wide});
      check(ops::Pad{{1, 0, 1, 8}, {0, 1, 0, 0}, 0.5}, {wide});
      check(ops::Concat{-1}, {wide, random_tensor({2, 3, 2, 8}, 4, -2, 2, dtype), wide});
    }
  }
  const HostTensor x = random_tensor({2, 3, 4, 5}, 1);
  for (const std::vector<std::int64_t>& axes :
       {std::vector<std::int64_t>{0}, {1, 2}, {3}, {0, 1, 2, 3}})
    for (const Reduction kind : {Reduction::kSum, Reduction::kMean})
      check(ops::Reduce{kind, axes, axes.size() == 1}, {x});
  Kernel kernel;
  const ops::Fill fill{{3, 7}, DType::kInt32, -5.0};
  const Tensors filled = run_on_device(fill, {}, fill.infer({}), {}, kernel);
  for (std::size_t i = 0; i < 21; ++i) CHECK(filled[0][i] == -5.0);
  const ops::Reshape reshape{{4, -1}};
  const HostTensor flat = random_tensor({2, 6}, 3);
  CHECK(run_on_device(reshape, {flat}, reshape.infer(specs_of({flat})), {}, kernel)[0].bytes ==
        flat.bytes);
}

TEST_CASE("cuda kernels: functions of one number") {
  for (const DType dtype : kImages)
    for (const std::int64_t n : {1, 9, 2050}) {
      const HostTensor wide = random_tensor({n}, 1, -6, 6, dtype);
      const HostTensor positive = random_tensor({n}, 2, 0.25, 4, dtype);
      const HostTensor g = random_tensor({n}, 3, -2, 2, dtype);
      for (int kind = 0; kind <= static_cast<int>(UnaryKind::kThreshold); ++kind) {
        const auto k = static_cast<UnaryKind>(kind);
        CAPTURE(kind);
        const bool needs_positive = k == UnaryKind::kLog || k == UnaryKind::kPower ||
                                    k == UnaryKind::kReciprocal ||
                                    k == UnaryKind::kReciprocalSqrt || k == UnaryKind::kSqrt;
        const double a = k == UnaryKind::kClip ? -1.5 : k == UnaryKind::kHardSigmoid ? 0.2 : 1.25;
        const HostTensor& x = needs_positive ? positive : wide;
        check(ops::Unary{k, a, 0.5}, {x});
        check(ops::UnaryGrad{k, a, 0.5}, {x, g});
      }
    }
  const HostTensor special(Shape{5}, {kNaN, kInfinity, -kInfinity, 0.0, -3.0});
  const HostTensor infinite(Shape{5}, {1.0, kInfinity, kInfinity, 2.0, kInfinity});
  for (const UnaryKind kind :
       {UnaryKind::kAbs, UnaryKind::kClip, UnaryKind::kExp, UnaryKind::kErf, UnaryKind::kHardSwish,
        UnaryKind::kThreshold, UnaryKind::kSoftplus}) {
    check(ops::Unary{kind, 0.5, 1.0}, {special});
    check(ops::UnaryGrad{kind, 0.5, 1.0}, {special, infinite});
  }
}

TEST_CASE("cuda kernels: functions of two numbers") {
  for (const DType dtype : kImages)
    for (int kind = 0; kind <= static_cast<int>(BinaryKind::kStep); ++kind) {
      CAPTURE(kind);
      const auto k = static_cast<BinaryKind>(kind);
      const bool ties = k == BinaryKind::kEqual || k == BinaryKind::kStep;
      const auto tensor = [&](Shape shape, std::uint64_t seed) {
        return ties ? random_integers(std::move(shape), seed, 2, dtype)
                    : random_tensor(std::move(shape), seed,
                                    k == BinaryKind::kPower || k == BinaryKind::kDivide ? 0.5 : -2,
                                    2, dtype);
      };
      check(ops::Binary{k}, {tensor({2, 3, 1, 5}, 1), tensor({3, 4, 1}, 2)});
      check(ops::Binary{k}, {tensor({1031}, 3), tensor({1031}, 4)});
      check(ops::Binary{k}, {tensor({2, 7}, 5), tensor({}, 6)});
    }
  const HostTensor a(Shape{4}, {kNaN, 1.0, kInfinity, -kInfinity});
  const HostTensor b(Shape{4}, {1.0, kNaN, 3.0, 2.0});
  for (const BinaryKind kind : {BinaryKind::kMaximum, BinaryKind::kMinimum, BinaryKind::kDivide})
    check(ops::Binary{kind}, {a, b});
}

TEST_CASE("cuda kernels: maxima and where they are") {
  for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{1, 1, 1, 1}, Shape{3, 300, 2, 129}}) {
    const HostTensor x = random_integers(shape, 1, 3);  // with ties
    for (const bool last : {false, true})
      for (const std::int64_t axis : {0, 1, -1})
        for (const bool keep : {false, true}) check(ops::ArgMax{axis, keep, last}, {x});
    for (const std::vector<std::int64_t>& axes :
         {std::vector<std::int64_t>{0}, {1, 2}, {3}, {0, 1, 2, 3}})
      check(ops::Reduce{Reduction::kMax, axes, true}, {x});
  }
  HostTensor x = random_tensor({3, 200}, 1);
  x.set(7, kNaN);
  x.set(150, kNaN);
  x.set(399, kInfinity);
  for (std::size_t i = 400; i < 600; ++i) x.set(i, -kInfinity);
  for (const bool last : {false, true})
    for (const std::int64_t axis : {0, 1}) check(ops::ArgMax{axis, false, last}, {x});
  for (const std::int64_t axis : {0, 1}) check(ops::Reduce{Reduction::kMax, {axis}}, {x});
}

TEST_CASE("cuda kernels: rows by number") {
  const std::vector<std::int64_t> indices = {3, -1, 0, 3, 3, 1, -1};
  for (const DType dtype : kImages) {
    check(ops::Take{indices}, {random_tensor({4, 3, 5}, 1, -2, 2, dtype)});
    check(ops::Take{indices}, {random_tensor({4}, 1, -2, 2, dtype)});
    check(ops::Take{{}}, {random_tensor({3, 2}, 2, -2, 2, dtype)});
  }
  check(ops::TakeGrad{indices, 4}, {random_tensor({7, 3, 5}, 2)});
  check(ops::TakeGrad{indices, 5}, {random_tensor({7}, 2)});
  check(ops::TakeGrad{{}, 3}, {random_tensor({0, 2}, 2)});
  Kernel kernel;
  const HostTensor labels = integers({10, 20, 30});
  const ops::Take op{{2, 2, -1, 0}};
  const Tensors taken = run_on_device(op, {labels}, op.infer(specs_of({labels})), {}, kernel);
  CHECK(same_bits(taken, {integers({30, 30, 0, 10})}));
}

// Vectors over ends of rows and of windows, places far away, boxes; of a type as it is, then
// normalised and rounded on the way as two kernels after it would.
TEST_CASE("cuda kernels: windows of images") {
  constexpr double kFar = 4e18;
  const std::vector<std::vector<double>> rows = {
      {0, 0, 0, 0, 0, 0, 0, 0},    {1, -2, -1, 1, 1, 3, 2, 5},   {2, 1, 2, 0, -3, 2, 4, 99},
      {0, 3, -3, 1, 0, 9, 0, 1},   {3, 0, 0, 0, 0, 0, 0, 0},     {-1, 0, 0, 1, 1, 2, 1, 2},
      {2, kFar, 0, 1, 0, 0, 0, 0}, {2, 0, -kFar, 0, 0, 0, 0, 0}, {1, -kFar, kFar, 1, 0, 0, 0, 0}};
  HostTensor places(TensorSpec{{static_cast<std::int64_t>(rows.size()), 8}, DType::kInt64});
  for (std::size_t i = 0; i < places.size(); ++i) places.set(i, rows[i / 8][i % 8]);
  for (const std::int64_t channels : {1, 3, 4, 7, 19}) {
    for (const Pair size : {Pair{5, 6}, Pair{1, 1}, Pair{8, 16}, Pair{3, 11}}) {
      for (const DType from : {DType::kUInt8, DType::kFloat32}) {
        CAPTURE(channels);
        const HostTensor images = random_integers({3, 5, 6, channels}, 1, 100, from);
        ops::TakeWindows op{size, 9.0, {}};
        for (std::int64_t c = 0; c < channels; ++c) op.box_fill.push_back(double(20 + c));
        const Tensors expected = run_kernel(op, {images, places}, {});
        Kernel kernel;
        const std::vector<TensorSpec> outputs = op.infer(specs_of({images, places}));
        CHECK(same_bits(run_on_device(op, {images, places}, outputs, {}, kernel), expected));
        CHECK(same_bits(run_on_device(op, {images, places}, outputs, {other_device()}, kernel),
                        expected));
        ops::NormalizeImage norm{1.0 / 255, {0.4}, {0.2}};
        // More factors of their own are another kernel's.
        for (std::int64_t c = 1; c < channels && channels <= 16; ++c) {
          norm.mean.push_back(0.4 + 0.1 * double(c));
          norm.std.push_back(0.2 + 0.1 * double(c));
        }
        for (const DType dtype : kImages) {
          std::vector<TensorSpec> normalised = norm.infer(outputs);
          Kernel separate;
          Tensors wanted = run_on_device(norm, expected, normalised, {}, separate);
          OnDevice how;
          how.pinned = "";
          how.absorbed = {{norm, outputs, normalised}};
          if (dtype != DType::kFloat32) {
            const ops::Cast cast{dtype};
            const std::vector<TensorSpec> cast_from = normalised;
            normalised = cast.infer(cast_from);
            wanted = run_on_device(cast, wanted, normalised, {}, separate);
            how.absorbed.push_back({cast, cast_from, normalised});
          }
          CHECK(same_bits(run_on_device(op, {images, places}, normalised, how, kernel), wanted));
        }
      }
    }
  }
}

TEST_CASE("cuda kernels: images of another size") {
  for (const DType dtype : kImages)
    for (const Shape& shape : {Shape{2, 5, 7, 3}, Shape{1, 1, 4, 8}, Shape{3, 6, 6, 1}})
      for (const Pair size : {Pair{10, 14}, Pair{3, 4}, Pair{1, 1}, Pair{7, 5}})
        for (int mode = 0; mode <= static_cast<int>(ResizeMode::kNearestRoundUp); ++mode)
          for (int grid = 0; grid <= static_cast<int>(ResizeGrid::kPytorchHalfPixel); ++grid) {
            const ops::Resize2d op{
                size, static_cast<ResizeMode>(mode), static_cast<ResizeGrid>(grid), {}};
            const HostTensor x = random_tensor(shape, 1, -2, 2, dtype);
            check(op, {x});
            const Shape output = op.infer(specs_of({x}))[0].shape;
            check(ops::Resize2dGrad{op, {shape[1], shape[2]}},
                  {random_tensor(output, 2, -2, 2, dtype)});
          }
  const ops::Resize2d scaled{{9, 8}, ResizeMode::kBilinear, ResizeGrid::kHalfPixel, {1.7, 1.3}};
  check(scaled, {random_tensor({1, 5, 6, 2}, 1)});
  check(ops::Resize2dGrad{scaled, {5, 6}}, {random_tensor({1, 9, 8, 2}, 1)});
}

TEST_CASE("cuda kernels: Muon") {
  const HostTensor rate(Shape{1}, {0.03}), factor(Shape{}, {0.4});
  constexpr std::size_t kRate = 2;
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 5}, Shape{7, 2}, Shape{4, 3, 3, 2},
                             Shape{70, 66}, Shape{66, 5, 14}}) {
    const HostTensor p = random_tensor(shape, 1), g = random_tensor(shape, 2),
                     v = random_tensor(shape, 3);
    check(ops::MuonUpdate{}, {p, g, rate, v}, kRate);
    check(ops::MuonUpdate{0.8, false, 0.1, 3, 2.0, true}, {p, g, rate, v, factor}, kRate);
  }
  const HostTensor zero(Shape{2, 3}, std::vector<double>(6, 0.0));
  check(ops::MuonUpdate{}, {zero, zero, rate, zero}, kRate);
}

// VGG-16's first layers at batch 256, of more elements than 2^29.
TEST_CASE("cuda kernels: large batches are taken") {
  const DeviceModule& module = cuda_module();
  ops::Conv2d op;
  op.padding = {1, 1, 1, 1};
  const std::vector<TensorSpec> inputs = {{{1024, 224, 224, 64}, DType::kBFloat16},
                                          {{64, 3, 3, 64}, DType::kFloat32}};
  const std::vector<TensorSpec> outputs = op.infer(inputs);
  Problem problem;
  problem.inputs = inputs;
  problem.outputs = outputs;
  problem.pinned = "reference";
  Selection selection;
  std::string refusal;
  CHECK(module.select(0, op, problem, selection, refusal));
  CHECK(refusal.empty());
  // Tiles reach beyond the last row, and their rows are numbers of 32 bits.
  const std::int64_t rows = (std::int64_t{1} << 31) - 64;
  for (const std::int64_t fewer : {0, 1024}) {
    const std::vector<TensorSpec> matrix = {{{rows - fewer, 1}, DType::kBFloat16},
                                            {{1, 1}, DType::kFloat32}};
    const std::vector<TensorSpec> product = ops::Dense{}.infer(matrix);
    problem.inputs = matrix;
    problem.outputs = product;
    CHECK(module.select(0, ops::Dense{}, problem, selection, refusal) == (fewer > 0));
  }
}

TEST_CASE("cuda kernels: what there is none for is refused with a reason") {
  const DeviceModule& module = cuda_module();
  const auto refusal_of = [&](const Op& op, const std::vector<TensorSpec>& inputs,
                              const char* pinned = "") {
    Problem problem;
    problem.inputs = inputs;
    problem.pinned = pinned;
    Selection selection;
    std::string refusal;
    CHECK(!module.select(0, op, problem, selection, refusal));
    return refusal;
  };
  const TensorSpec matrix{{2, 3}, DType::kFloat32};
  CHECK(refusal_of(ops::DenseSgdUpdate{}, {matrix}) ==
        "dense_sgd_update: not on cuda yet: there is no kernel for this op");
  CHECK(refusal_of(ops::Softmax{}, {{{2, 3}, DType::kFloat64}}) ==
        "softmax: not on cuda yet: float64 is computed on the CPU only");
  CHECK(refusal_of(ops::Softmax{}, {matrix}, "softmax.avx2") ==
        "softmax: no kernel 'softmax.avx2' on cuda, there is softmax.cuda");
  const TensorSpec images{{1, 4, 4, 2}, DType::kFloat32}, weight{{3, 1, 1, 2}, DType::kFloat32};
  for (const ops::Conv2d& op :
       {conv({std::int64_t{1} << 33, 1}, {}), conv({1, 1}, {}, {1, std::int64_t{1} << 32})})
    CHECK(refusal_of(op, {images, weight}) ==
          "conv2d: not on cuda yet: a stride, dilation or padding is more than 2^29");
  const auto images_of = [](std::int64_t n, std::int64_t size, std::int64_t channels) {
    return TensorSpec{{n, size, size, channels}, DType::kBFloat16};
  };
  const TensorSpec square{{64, 3, 3, 64}, DType::kFloat32};
  CHECK(
      refusal_of(ops::Conv2d{}, {images_of(1, 1 << 15, 64), square}) ==
      "conv2d: not on cuda yet: an image has more than 2^31 elements or all images more than 2^31 "
      "pixels");
  CHECK(refusal_of(ops::Conv2d{}, {images_of(1, 1 << 14, 1), {{1, 16384, 16384, 1}}}) ==
        "conv2d: not on cuda yet: a window has more than 2^27 elements");
  CHECK(refusal_of(ops::Dense{}, {{{1, std::int64_t{1} << 28}}, {{1, std::int64_t{1} << 28}}}) ==
        "dense: not on cuda yet: a matrix has more than 2^31 rows or 2^27 columns");
  CHECK(module.variants(ops::DenseSgdUpdate{}).empty());
  CHECK(module.variants(ops::Softmax{}) == std::vector<std::string>{"softmax.cuda"});
}
