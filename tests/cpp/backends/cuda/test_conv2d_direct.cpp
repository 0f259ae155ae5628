// Convolutions of few channels and the gradients of their weights, which threads add up without
// tiles (conv2d_direct.cu, conv2d_direct_weight.cu).
#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

struct Layer {
  ops::Conv2d op;
  Shape input, weight;
  HostTensor images(DType dtype) const { return random_tensor(input, 1, -2, 2, dtype); }
  HostTensor gradient(DType dtype) const {
    const Shape output =
        op.infer(std::vector<TensorSpec>{{input, dtype}, {weight, DType::kFloat32}})[0].shape;
    return random_tensor(output, 4, -2, 2, dtype);
  }
  ops::Conv2dGradWeight grad_weight(bool bias) const {
    auto gradient = gradient_of<ops::Conv2dGradWeight>(op);
    gradient.kernel_size = {weight[1], weight[2]};
    gradient.bias = bias;
    return gradient;
  }
};

const Layer kLeNet5{conv({1, 1}, {2, 2, 2, 2}), {3, 28, 28, 1}, {6, 5, 5, 1}};

// Whether kernels of that name computed it.
bool is_by(const std::string& kernel, const Op& op, const Tensors& inputs,
           const std::vector<TensorSpec>& outputs) {
  const std::string text = launched(op, inputs, outputs);
  CHECK(!text.empty());
  return text.find(kernel) != std::string::npos;
}
bool is_direct(const Layer& layer, DType dtype, const Epilogue& epilogue = {}) {
  ops::Conv2d op = layer.op;
  op.epilogue = epilogue;
  const Tensors inputs = {layer.images(dtype), coarse(layer.weight, 2)};
  return is_by("DirectConv<", op, inputs, op.infer(specs_of(inputs)));
}
bool has_direct_gradient(const Layer& layer, DType dtype) {
  const ops::Conv2dGradWeight op = layer.grad_weight(true);
  const Tensors inputs = {layer.images(dtype), layer.gradient(dtype)};
  return is_by("DirectWeight<", op, inputs, op.infer(specs_of(inputs)));
}

}  // namespace

// By threads instead of tiles: vectors of results within pixels and over several, borders of a
// block, windows as large as they may be, rows of them as they are packed for a product (1 to 3
// channels) and taps.
TEST_CASE("cuda kernels: convolutions of few channels") {
  const auto check_few = [](const ops::Conv2d& plain, const Shape& input, const Shape& weight,
                            ActivationKind kind, bool residual) {
    for (const DType dtype : kImages) {
      CAPTURE(weight[0]);
      CAPTURE(weight[3]);
      ops::Conv2d op = plain;
      op.epilogue = {residual, kind, 0.25};
      Tensors inputs = {random_tensor(input, 1, -2, 2, dtype), coarse(weight, 2),
                        random_tensor({weight[0]}, 3)};
      if (residual) {
        const Shape output = plain.infer(specs_of({inputs[0], inputs[1]}))[0].shape;
        inputs.push_back(random_tensor(output, 4, -9, 9, dtype));
      }
      check_anywhere(op, inputs);
    }
  };
  constexpr ActivationKind kTanh = ActivationKind::kScaledTanh, kRelu = ActivationKind::kRelu,
                           kNone = ActivationKind::kIdentity;
  check_few(conv({1, 1}, {2, 2, 2, 2}), {3, 28, 28, 1}, {6, 5, 5, 1}, kTanh, false);
  check_few(conv({1, 1}, {1, 1, 1, 1}), {1, 17, 16, 3}, {16, 3, 3, 3}, kRelu, true);
  check_few(conv({2, 2}, {3, 3, 3, 3}), {1, 33, 19, 4}, {12, 7, 7, 4}, kRelu, false);
  check_few(conv({1, 3}, {0, 4, 2, 0}, {2, 1}), {2, 9, 11, 2}, {8, 4, 3, 2}, kNone, true);
  check_few(conv({3, 1}, {1, 0, 0, 1}), {1, 12, 13, 3}, {9, 3, 1, 3}, kTanh, true);
  check_few({}, {1, 1, 1, 1}, {1, 1, 1, 1}, kRelu, true);
  check_few({}, {0, 5, 5, 2}, {3, 2, 2, 2}, kRelu, false);
  // What is a step too many for it, each.
  check_few({}, {1, 9, 9, 5}, {6, 3, 3, 5}, kRelu, false);
  check_few({}, {1, 9, 9, 3}, {17, 3, 3, 3}, kRelu, false);
  check_few({}, {1, 10, 9, 4}, {6, 8, 7, 4}, kRelu, false);
}

TEST_CASE("cuda kernels: LeNet-5's first layer is computed without tiles") {
  if (!is_emulated()) return;
  Epilogue measured;
  measured.moments = true;
  for (const DType dtype : kImages) {
    CAPTURE(static_cast<int>(dtype));
    CHECK(is_direct(kLeNet5, dtype));
    CHECK(is_direct(kLeNet5, dtype, {false, ActivationKind::kScaledTanh, 0.0}));
    CHECK_FALSE(is_direct(kLeNet5, dtype, measured));
    // What is a step too many for it, each, and groups.
    CHECK(is_direct({{}, {1, 9, 9, 4}, {16, 7, 7, 4}}, dtype));
    CHECK_FALSE(is_direct({{}, {1, 9, 9, 5}, {6, 3, 3, 5}}, dtype));
    CHECK_FALSE(is_direct({{}, {1, 9, 9, 3}, {17, 3, 3, 3}}, dtype));
    CHECK_FALSE(is_direct({{}, {1, 10, 9, 4}, {6, 8, 7, 4}}, dtype));
    CHECK_FALSE(is_direct({conv({1, 1}, {}, {1, 1}, 2), {1, 9, 9, 4}, {6, 3, 3, 2}}, dtype));
    const Variable named("PYCNN_CUDA_TILE", "small");
    CHECK_FALSE(is_direct(kLeNet5, dtype));
  }
}

// Windows of a thread for each place and of several, as large as they may be, and of one pixel, as
// which all images are one row; pieces of rows, borders, pixels that no window has, and blocks that
// have several rounds.
TEST_CASE("cuda kernels: gradients of the weights of few channels") {
  const Layer layers[] = {kLeNet5,
                          {conv({1, 1}, {1, 1, 1, 1}), {1, 17, 16, 3}, {16, 3, 3, 3}},
                          {conv({2, 2}, {3, 3, 3, 3}), {1, 33, 66, 4}, {12, 7, 7, 4}},
                          {conv({1, 3}, {0, 4, 2, 0}, {2, 1}), {2, 9, 11, 2}, {8, 4, 3, 2}},
                          {conv({1, 1}, {0, 0, 9, 3}, {1, 3}), {2, 3, 29, 1}, {1, 1, 9, 1}},
                          {conv({3, 1}, {1, 0, 0, 1}), {1, 12, 33, 3}, {9, 3, 1, 3}},
                          {conv({4, 4}, {1, 0, 0, 1}), {1, 13, 133, 3}, {4, 2, 2, 3}},
                          {conv({1, 1}, {1, 1, 1, 1}), {1, 2, 131, 1}, {5, 3, 3, 1}},
                          {{}, {3, 7, 29, 4}, {11, 1, 1, 4}},
                          {{}, {1, 1, 1, 1}, {1, 1, 1, 1}},
                          {{}, {0, 5, 5, 2}, {3, 2, 2, 2}}};
  for (const Layer& layer : layers)
    for (const DType dtype : kImages)
      for (const bool bias : {true, false}) {
        CAPTURE(layer.weight[0]);
        CAPTURE(layer.weight[3]);
        CAPTURE(bias);
        check_anywhere(layer.grad_weight(bias), {layer.images(dtype), layer.gradient(dtype)});
      }
}

// What lies beyond an image takes no part, nor do channels that a thread adds up for nothing.
TEST_CASE("cuda kernels: gradients of the weights of few channels keep numbers that are none") {
  for (const DType dtype : kImages) {
    HostTensor images = kLeNet5.images(dtype), gradient = kLeNet5.gradient(dtype);
    gradient.set(3, kNaN);  // channel 3 of the corner, whose window is outside mostly
    check(kLeNet5.grad_weight(true), {images, gradient});
    gradient = kLeNet5.gradient(dtype);
    images.set(28, std::numeric_limits<double>::infinity());
    check(kLeNet5.grad_weight(true), {images, gradient});
  }
}

// Whatever the bias, the weight's gradient has the same bits.
TEST_CASE("cuda kernels: chunks of a gradient by threads do not depend on its bias") {
  const Tensors inputs = {kLeNet5.images(DType::kFloat32), kLeNet5.gradient(DType::kFloat32)};
  const auto weight = [&](bool bias) {
    const ops::Conv2dGradWeight op = kLeNet5.grad_weight(bias);
    Kernel kernel;
    return Tensors{run_on_device(op, inputs, op.infer(specs_of(inputs)), {}, kernel)[0]};
  };
  CHECK(same_bits(weight(true), weight(false)));
}

// By the count of multiply-adds: tensor cores take tiles that float32 does not.
TEST_CASE("cuda kernels: which gradients of weights are added up without tiles") {
  if (!is_emulated()) return;
  const Layer stem{conv({2, 2}, {3, 3, 3, 3}), {1, 63, 63, 3}, {16, 7, 7, 3}};
  for (const DType dtype : kImages) {
    CAPTURE(static_cast<int>(dtype));
    const bool plain = dtype == DType::kFloat32;
    CHECK(has_direct_gradient(kLeNet5, dtype));
    CHECK(has_direct_gradient({conv({1, 1}, {1, 1, 1, 1}), {1, 32, 32, 3}, {16, 3, 3, 3}}, dtype));
    CHECK(has_direct_gradient({{}, {1, 9, 9, 4}, {8, 1, 1, 4}}, dtype));
    CHECK(has_direct_gradient(stem, dtype) == plain);
    CHECK_FALSE(has_direct_gradient({{}, {2, 9, 2, 2}, {3, 2, 2, 2}}, dtype));  // rows of one
    CHECK_FALSE(has_direct_gradient({{}, {1, 33, 33, 5}, {6, 3, 3, 5}}, dtype));
    CHECK_FALSE(has_direct_gradient({{}, {1, 33, 33, 3}, {17, 3, 3, 3}}, dtype));
    CHECK_FALSE(
        has_direct_gradient({conv({1, 1}, {}, {1, 1}, 2), {1, 33, 33, 4}, {6, 3, 3, 2}}, dtype));
    const Variable named("PYCNN_CUDA_TILE", "small");
    CHECK_FALSE(has_direct_gradient(kLeNet5, dtype));
  }
  const Variable precision("PYCNN_CUDA_TF32", "1");
  CHECK(has_direct_gradient(kLeNet5, DType::kFloat32));
  CHECK_FALSE(has_direct_gradient(stem, DType::kFloat32));
}

TEST_CASE("cuda kernels: gradients of weights without tiles are two launches at most") {
  if (!is_emulated()) return;
  const auto launches = [](const Layer& layer, bool bias) {
    const ops::Conv2dGradWeight op = layer.grad_weight(bias);
    const Tensors inputs = {layer.images(DType::kFloat32), layer.gradient(DType::kFloat32)};
    Calls calls;
    Kernel kernel;
    run_on_device(op, inputs, op.infer(specs_of(inputs)), {}, kernel);
    return calls.count("launch");
  };
  const Layer small{conv({1, 1}, {2, 2, 2, 2}), {1, 18, 28, 1}, {6, 5, 5, 1}};
  for (const bool bias : {true, false}) {
    CHECK(launches(small, bias) == 1);
    CHECK(launches(kLeNet5, bias) == 2);
  }
}
