// Convolutions of few channels, which threads add up without tiles (conv2d_direct.cu).
#include "backends/cuda/check_kernel.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

struct Layer {
  ops::Conv2d op;
  Shape input, weight;
  HostTensor images(DType dtype) const { return random_tensor(input, 1, -2, 2, dtype); }
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
