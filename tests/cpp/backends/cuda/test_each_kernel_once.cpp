// The kernels of each op once, on small shapes that fill no tile and mostly no vector, and one
// training: what tools/gpu_check.sh runs under compute-sanitizer, where every launch takes long.
// Those that rewrite for a library or look at its results are among them by our own kernels.
// tests/house/test_gpu_check.py looks that no op of test_kernels.cpp and the like is missing.
#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

// "": a library's kernel, if there is one.
std::string pinned = OnDevice{}.pinned;
OnDevice where() {
  OnDevice how;
  how.pinned = pinned.c_str();
  return how;
}

// One that computes another convolution, where a library's was wanted.
void expect_library(const Kernel& kernel) {
  if (!pinned.empty()) return;
  const std::string variant = kernel.variant;
  CAPTURE(variant);
  CHECK(variant.find('+') != std::string::npos);
}

// Near the reference. `keep` as for `check`.
template <class OpType>
void once(const OpType& op, const Tensors& inputs, std::size_t keep = 99) {
  const std::string name = OpType::kName;
  CAPTURE(name);
  const Tensors expected = reference_of(op, inputs, keep);
  Kernel kernel;
  const Tensors actual = run_on_device(op, inputs, op.infer(specs_of(inputs)), where(), kernel);
  expect_library(kernel);
  for (std::size_t o = 0; o < expected.size(); ++o) check_close(actual[o], expected[o]);
}

// What has no reference of one kernel: that it runs.
template <class OpType>
void launch(const OpType& op, const Tensors& inputs) {
  Kernel kernel;
  run_on_device(op, inputs, op.infer(specs_of(inputs)), where(), kernel);
  expect_library(kernel);
}

void conv_once(const ops::Conv2d& plain, const Shape& input, const Shape& weight, DType dtype) {
  const HostTensor x = random_tensor(input, 1, -2, 2, dtype), w = coarse(weight, 2);
  const HostTensor bias = random_tensor({weight[0]}, 3);
  const Shape output = plain.infer(specs_of({x, w}))[0].shape;
  ops::Conv2d op = plain;
  op.epilogue = {true, ActivationKind::kRelu, 0.0};
  once(op, {x, w, bias, random_tensor(output, 4, -9, 9, dtype)});
  ops::Conv2d measured = plain;
  measured.epilogue.moments = true;
  launch(measured, {x, w, bias});
  const HostTensor g = random_tensor(output, 5, -2, 2, dtype);
  auto grad_input = gradient_of<ops::Conv2dGradInput>(plain);
  grad_input.input_size = {input[1], input[2]};
  const HostTensor vector = random_tensor({input[3]}, 6);
  auto sums = grad_input;
  sums.sums = {true, ActivationKind::kRelu, 0.0};
  launch(sums, {g, w, x, vector, vector, vector});
  grad_input.finish = {true, true};
  once(grad_input, {g, w, random_tensor(input, 7, -2, 2, dtype), x});
  if (input[3] % 8 == 0) {
    grad_input.finish.signs = true;
    const Shape bytes = {input[0], input[1], input[2], input[3] / 8};
    launch(grad_input, {g, w, x, x, HostTensor(TensorSpec{bytes, DType::kUInt8})});
  }
  auto grad_weight = gradient_of<ops::Conv2dGradWeight>(plain);
  grad_weight.kernel_size = {weight[1], weight[2]};
  grad_weight.bias = true;
  once(grad_weight, {x, g});
}

}  // namespace

TEST_CASE("cuda once: convolutions in each tile") {
  for (const char* const tile : {"large", "medium", "small"}) {
    CAPTURE(tile);
    const Variable named("PYCNN_CUDA_TILE", tile);
    for (const DType dtype : kImages)
      conv_once(conv({2, 1}, {1, 1, 1, 1}), {2, 9, 10, 16}, {136, 3, 3, 16}, dtype);
    const Variable precision("PYCNN_CUDA_TF32", "1");
    conv_once(conv({2, 1}, {1, 1, 1, 1}), {2, 9, 10, 16}, {136, 3, 3, 16}, DType::kFloat32);
  }
}

TEST_CASE("cuda once: convolutions of other shapes") {
  const DType dtype = DType::kBFloat16;
  conv_once(conv({2, 2}, {3, 3, 3, 3}), {2, 13, 12, 3}, {10, 7, 7, 3}, dtype);
  conv_once(conv({1, 1}, {1, 1, 1, 1}, {1, 1}, 4), {1, 7, 6, 16}, {32, 3, 3, 4}, dtype);
  conv_once(conv({3, 2}, {1, 0, 0, 1}, {1, 3}, 5), {2, 8, 9, 15}, {10, 2, 3, 3}, dtype);
  conv_once({}, {1, 48, 47, 9}, {10, 1, 1, 9}, dtype);  // chunks of pixels
}

// What moves images and weights there, and on a GPU what fills operands and compares results.
TEST_CASE("cuda once: convolutions as others, by our own kernels in a library's place") {
  const Variable own("PYCNN_CUDA_REWRITES", "own"), emulated("PYCNN_EMULATED_REWRITE", "0");
  const Variable untimed("PYCNN_CUDA_DETERMINISTIC", "1");
  pinned = "";
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    conv_once(conv({2, 2}, {3, 3, 3, 3}), {2, 13, 12, 3}, {10, 7, 7, 3}, dtype);
    conv_once(conv({1, 1}, {1, 1, 1, 1}), {2, 5, 6, 9}, {10, 3, 3, 9}, dtype);
    conv_once(conv({1, 2}, {1, 1, 1, 1}, {1, 1}, 4), {1, 7, 6, 16}, {32, 3, 3, 4}, dtype);
  }
  pinned = OnDevice{}.pinned;
}

TEST_CASE("cuda once: convolutions of few channels") {
  for (const DType dtype : kImages) {
    conv_once(conv({1, 1}, {2, 2, 2, 2}), {2, 18, 17, 1}, {6, 5, 5, 1}, dtype);
    conv_once(conv({2, 1}, {1, 1, 1, 1}), {2, 9, 10, 4}, {16, 3, 3, 4}, dtype);
  }
}

TEST_CASE("cuda once: dense layers") {
  for (const DType dtype : kImages) {
    const HostTensor x = random_tensor({5, 65}, 1, -2, 2, dtype), w = coarse({71, 65}, 2);
    const HostTensor g = random_tensor({5, 71}, 3, -2, 2, dtype);
    ops::Dense op;
    op.epilogue = {true, ActivationKind::kRelu, 0.0};
    once(op, {x, w, random_tensor({71}, 4), random_tensor({5, 71}, 5, -9, 9, dtype)});
    once(ops::DenseGradInput{}, {g, w});
    once(ops::DenseGradWeight{true}, {x, g});
  }
}

TEST_CASE("cuda once: pools") {
  const DType dtype = DType::kBFloat16;
  for (const std::int64_t channels : {8, 3}) {
    const HostTensor x = random_integers({2, 7, 6, channels}, 1, 9, dtype);
    const auto gradient = [&](const auto& op) {
      return random_integers(op.infer(specs_of({x}))[0].shape, 2, 3, dtype);
    };
    const ops::MaxPool2d largest{{3, 3}, {2, 2}, {1, 1, 1, 1}};
    const ops::AvgPool2d mean{{3, 3}, {2, 1}, {1, 1, 1, 0}, true, false};
    once(largest, {x});
    once(ops::MaxPool2dGrad{largest}, {x, gradient(largest)});
    once(mean, {x});
    once(ops::AvgPool2dGrad{mean, {7, 6}}, {gradient(mean)});
    once(ops::AdaptiveAvgPool2d{{3, 2}}, {x});
    once(ops::AdaptiveAvgPool2dGrad{{7, 6}}, {gradient(ops::AdaptiveAvgPool2d{{3, 2}})});
    once(ops::GlobalAvgPool2d{}, {x});
    once(ops::GlobalAvgPool2dGrad{{7, 6}}, {gradient(ops::GlobalAvgPool2d{})});
    once(ops::GlobalMaxPool2d{}, {x});
    once(ops::GlobalMaxPool2dGrad{}, {x, gradient(ops::GlobalMaxPool2d{})});
    const HostTensor scale = random_tensor({channels}, 3),
                     mean_of = random_integers({channels}, 5, 2);
    HostTensor factor({{channels}, DType::kFloat32});
    for (std::size_t i = 0; i < factor.size(); ++i) factor.set(i, i % 3 == 0 ? -1.0 : 0.5);
    const ops::BatchNormMaxPool joined{largest, ActivationKind::kRelu, 0.0};
    once(joined, {x, mean_of, factor, mean_of});
    once(ops::BatchNormMaxPoolGrad{joined},
         {x, scale, mean_of, random_tensor({channels}, 4, 0.5, 2), factor, mean_of,
          gradient(largest)});
    const ops::LocalResponseNorm across{channels == 8 ? 5 : 2, 0.3, 0.75, 2.0};
    once(across, {x});
    once(ops::LocalResponseNormGrad{across},
         {x, random_tensor({2, 7, 6, channels}, 6, -2, 2, dtype)});
  }
}

// With and without whole vectors of channels.
void batch_norms_once(std::int64_t channels) {
  for (const DType dtype : kImages) {
    const HostTensor x = random_tensor({1100, channels}, 1, -1, 3, dtype);
    const HostTensor g = random_tensor({1100, channels}, 2, -2, 2, dtype);
    const HostTensor scale = random_tensor({channels}, 4), shift = random_tensor({channels}, 5),
                     mean = random_tensor({channels}, 6),
                     var = random_tensor({channels}, 7, 0.5, 2);
    once(ops::BatchNormTrain{1e-3, 0.2}, {x, scale, shift, mean, var});
    once(ops::BatchNormStatistics{1e-3, 0.2}, {x, scale, shift, mean, var});
    once(ops::BatchNormInference{1e-3}, {x, scale, shift, mean, var});
    once(ops::BatchNormTrainGrad{}, {x, scale, mean, var, g});
    once(ops::BatchNormInferenceGrad{1e-3}, {x, scale, mean, var, g});
    once(ops::BatchNormApply{{true, ActivationKind::kRelu, 0.0}}, {x, mean, scale, shift, g});
    once(ops::BatchNormApply{{true, ActivationKind::kRelu, 0.0}},
         {x, mean, scale, shift, g, var, shift, mean});
    once(ops::BatchNormApplyGrad{ActivationKind::kRelu, 0.0},
         {x, scale, mean, var, scale, shift, g});
    ops::BatchNormApply signs{{true, ActivationKind::kRelu, 0.0}};
    signs.epilogue.signs = true;
    if (channels % 8 != 0) continue;
    launch(signs, {x, mean, scale, shift, g});
    launch(signs, {x, mean, scale, shift, g, var, shift, mean});
  }
}

TEST_CASE("cuda once: batch norms") {
  for (const std::int64_t channels : {9, 16}) batch_norms_once(channels);
  once(ops::FoldBatchNorm{1e-3},
       {random_tensor({5, 3, 2, 4}, 1), random_tensor({5}, 2), random_tensor({5}, 3),
        random_tensor({5}, 4), random_tensor({5}, 5, 0.5), random_tensor({5}, 6)});
}

TEST_CASE("cuda once: element by element") {
  for (const DType dtype : kImages) {
    const HostTensor x = random_tensor({2051}, 1, 0.5, 4, dtype);
    const HostTensor y = random_tensor({2051}, 2, 0.5, 2, dtype);
    once(ops::Activation{ActivationKind::kTanh}, {x});
    once(ops::ActivationGrad{ActivationKind::kTanh}, {x, y});
    once(ops::Add{}, {x, y});
    once(ops::Subtract{}, {x, y});
    once(ops::Multiply{}, {x, random_tensor({}, 3, -2, 2, dtype)});
    once(ops::Affine{1.5, -0.25}, {x});
    once(ops::Cast{dtype == DType::kFloat32 ? DType::kBFloat16 : DType::kFloat32}, {x});
    once(ops::DropoutTrain{0.3, -77}, {y, integers({123456789012345}), integers({9})});
    once(ops::Unary{UnaryKind::kErf, 1.25, 0.5}, {x});
    once(ops::UnaryGrad{UnaryKind::kErf, 1.25, 0.5}, {x, y});
    once(ops::Binary{BinaryKind::kDivide}, {x, y});
    once(ops::Broadcast{{2, 2, 3, 4, 5}}, {random_tensor({3, 1, 5}, 4, -2, 2, dtype)});
  }
}

TEST_CASE("cuda once: softmax, losses and ranks") {
  for (const std::int64_t classes : {10, 301}) {
    const HostTensor x = random_tensor({5, classes}, 1, -9, 9), g = random_tensor({5, classes}, 2);
    const HostTensor labels = integers({0, classes - 1, classes / 2, classes / 3, 0});
    const HostTensor grad_loss(Shape{}, {0.7});
    once(ops::Softmax{}, {x});
    once(ops::LogSoftmax{}, {x});
    once(ops::SoftmaxGrad{}, {random_tensor({5, classes}, 3, 0, 1), g});
    once(ops::LogSoftmaxGrad{}, {random_tensor({5, classes}, 3, -9, 0), g});
    once(ops::SoftmaxCrossEntropy{0.1}, {x, labels});
    once(ops::SoftmaxCrossEntropyGrad{0.1}, {x, labels, grad_loss});
    once(ops::TopKCorrect{5}, {random_integers({5, classes}, 5, 2), labels});
    once(ops::MeanSquaredError{}, {x, g});
    once(ops::MeanSquaredErrorGrad{}, {x, g, grad_loss});
  }
}

TEST_CASE("cuda once: optimizers") {
  const HostTensor p = random_tensor({1031}, 1), g = random_tensor({1031}, 2),
                   rate(Shape{1}, {0.03}), v = random_tensor({1031}, 3),
                   positive = random_tensor({1031}, 4, 0.1, 2.0), factor(Shape{}, {0.4}),
                   step = integers({12});
  constexpr std::size_t kRate = 2;
  once(ops::SgdUpdate{0.9, true, 0.0, 2.0, true}, {p, g, rate, v, factor}, kRate);
  once(ops::AdamUpdate{0.8, 0.9, 1e-5, 0.1, true, 0.5, true},
       {p, g, rate, step, v, positive, factor}, kRate);
  const Shape matrix = {66, 5, 14};
  once(ops::MuonUpdate{},
       {random_tensor(matrix, 1), random_tensor(matrix, 2), rate, random_tensor(matrix, 3)}, kRate);
  once(ops::EmaUpdate{0.99}, {p, g, step});
  once(ops::ClipFactor{1.0}, {p, random_tensor({5003}, 5), g});
  once(ops::LossScale{10, 1.0},
       {HostTensor(Shape{}, {8.0}), HostTensor(Shape{}, {1024.0}), integers({9})});
  once(ops::Commit{}, {g, p, factor});
  launch(ops::Increment{}, {integers({41})});
}

TEST_CASE("cuda once: moving data") {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16})
    for (const std::int64_t channels : {5, 16}) {
      const HostTensor x = random_tensor({2, 3, 4, channels}, 1, -2, 2, dtype);
      once(ops::Transpose{{0, 3, 1, 2}}, {x});
      once(ops::Slice{{0, 1, 2, 1}, {2, 2, 1, -1}}, {x});
      once(ops::Pad{{0, 1, 2, 0}, {1, 0, 3, 0}, 0.5}, {x});
      once(ops::Concat{-1}, {x, random_tensor({2, 3, 4, 8}, 2, -2, 2, dtype), x});
      once(ops::Take{{1, -1, 0, 1}}, {x});
      const ops::Resize2d larger{{9, 7}, ResizeMode::kBilinear, ResizeGrid::kHalfPixel, {}};
      once(larger, {x});
      once(ops::Resize2dGrad{larger, {3, 4}},
           {random_tensor({2, 9, 7, channels}, 3, -2, 2, dtype)});
    }
  const HostTensor x = random_integers({3, 300, 2, 129}, 1, 3);
  once(ops::Reduce{Reduction::kMean, {1, 2}, true}, {x});
  once(ops::Reduce{Reduction::kSum, {0, 1, 2}}, {x});
  once(ops::Reduce{Reduction::kMax, {0, 1, 2, 3}}, {x});
  once(ops::ArgMax{1, true, true}, {x});
  once(ops::TakeGrad{{3, -1, 0, 3, 3, 1, -1}, 4}, {random_tensor({7, 3, 5}, 2)});
  once(ops::TakeGrad{{3, -1, 0, 3, 3, 1, -1}, 4}, {random_tensor({7, 4, 4}, 2)});  // whole vectors
  once(ops::Reshape{{4, -1}}, {random_tensor({2, 6}, 3)});
  launch(ops::Fill{{3, 7}, DType::kInt32, -5.0}, {});
  HostTensor bytes(TensorSpec{{2, 3, 5, 3}, DType::kUInt8});
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes.set(i, static_cast<double>(i * 37 % 256));
  once(ops::NormalizeImage{1.0 / 255, {0.4, 0.5, 0.6}, {0.2, 0.25, 0.3}}, {bytes});
  HostTensor places(TensorSpec{{2, 8}, DType::kInt64});
  const double rows[] = {1, -2, -1, 1, 1, 3, 2, 5, 0, 3, -3, 0, 0, 9, 0, 1};
  for (std::size_t i = 0; i < places.size(); ++i) places.set(i, rows[i]);
  launch(ops::TakeWindows{{4, 7}, 9.0, {20.0, 21.0, 22.0}}, {bytes, places});
}

// Joined updates, packed weights, copies, and a step that is recorded and replayed.
TEST_CASE("cuda once: a training") {
  const Training training = train(options_for("cuda"), 4);
  CHECK(training.losses.back() < training.losses.front());
}
