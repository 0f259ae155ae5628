// Convolutions and dense layers of the CUDA module (check_kernel.h).
#include <array>

#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

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
                    {random_tensor({1, size, size, 5}, 1), random_tensor({1, size, size, 3}, 2)});
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
  for (const char* const tile : {"", "small"}) {  // by threads, and by tiles
    const Variable named("PYCNN_CUDA_TILE", tile);
    for (const auto& [images, height, width] : {std::array{5, 64, 61}, {1, 302, 230}}) {
      const Shape input = {images, height, width, 1}, output = {images, height, width, 2};
      check_weight_gradient({}, random_tensor(input, 1), {2, 1, 1, 1}, random_tensor(output, 2),
                            true);
    }
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
