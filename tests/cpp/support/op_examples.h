#pragma once
#include <limits>
#include <utility>
#include <vector>

#include "pycnn/ops.h"

// At least one valid use of every op, with attributes that differ from their defaults. Inputs are
// f32 where the op takes floats.
struct OpExample {
  pycnn::Op op;
  std::vector<pycnn::TensorSpec> inputs;
};

inline pycnn::TensorSpec f32(pycnn::Shape shape) {
  return {std::move(shape), pycnn::DType::kFloat32};
}
inline pycnn::TensorSpec f64(pycnn::Shape shape) {
  return {std::move(shape), pycnn::DType::kFloat64};
}
inline pycnn::TensorSpec i64(pycnn::Shape shape) {
  return {std::move(shape), pycnn::DType::kInt64};
}
inline pycnn::TensorSpec i32(pycnn::Shape shape) {
  return {std::move(shape), pycnn::DType::kInt32};
}
inline pycnn::TensorSpec u8(pycnn::Shape shape) { return {std::move(shape), pycnn::DType::kUInt8}; }

inline std::vector<OpExample> op_examples() {
  using namespace pycnn;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  // Height (9 + 1 + 2 - 5) / 2 + 1 = 4, width (8 + 0 + 3 - 2) / 3 + 1 = 4.
  const Pair stride = {2, 3}, dilation = {2, 1};
  const Padding padding = {1, 2, 0, 3};
  const Epilogue epilogue = {true, ActivationKind::kLeakyRelu, 0.125};
  const TensorSpec image = f32({2, 9, 8, 6}), weight = f32({4, 3, 2, 3}), out = f32({2, 4, 4, 4});
  const ops::MaxPool2d max_pool = {{3, 2}, {2, 1}, {1, 1, 0, 1}, {2, 1}, true};
  const ops::AvgPool2d avg_pool = {{3, 2}, {2, 1}, {1, 0, 1, 1}, true, false};
  const TensorSpec max_out = infer(max_pool, {&image, 1})[0];
  const TensorSpec avg_out = infer(avg_pool, {&image, 1})[0];
  const ops::LocalResponseNorm lrn = {4, 2e-4, 0.5, 2.0};
  const TensorSpec c6 = f32({6});
  const std::vector<TensorSpec> norm = {image, c6, c6, c6, c6};
  const std::vector<TensorSpec> norm_grad = {image, c6, c6, c6, image};
  return {
      {ops::Conv2d{stride, padding, dilation, 2, {}}, {image, weight}},
      {ops::Conv2d{stride, padding, dilation, 2, {}}, {image, weight, f32({4})}},
      {ops::Conv2d{stride, padding, dilation, 2, epilogue}, {image, weight, f32({4}), out}},
      {ops::Conv2d{stride, padding, dilation, 2, epilogue}, {image, weight, out}},
      {ops::Conv2dGradInput{stride, padding, dilation, 2, {9, 8}}, {out, weight}},
      {ops::Conv2d{stride, padding, dilation, 2, {false, ActivationKind::kRelu, 0.5, true}},
       {image, weight}},
      {ops::Conv2dGradInput{
           stride, padding, dilation, 2, {9, 8}, {true, ActivationKind::kLeakyRelu, 0.25}},
       {out, weight, image, c6, c6, c6}},
      {ops::Conv2dGradInput{stride, padding, dilation, 2, {9, 8}, {}, {true, false}},
       {out, weight, image}},
      {ops::Conv2dGradInput{
           stride, padding, dilation, 2, {9, 8}, {true, ActivationKind::kRelu, 0.25}, {true, true}},
       {out, weight, image, image, image, c6, c6, c6}},
      {ops::Conv2dGradWeight{stride, padding, dilation, 2, {3, 2}, true}, {image, out}},
      {ops::Conv2dGradWeight{stride, padding, dilation, 2, {3, 2}, false}, {image, out}},
      {ops::Dense{}, {f32({5, 3}), f32({7, 3}), f32({7})}},
      {ops::Dense{}, {f32({5, 2, 3}), f32({7, 3})}},
      {ops::Dense{epilogue}, {f32({5, 3}), f32({7, 3}), f32({5, 7})}},
      {ops::DenseGradInput{}, {f32({5, 2, 7}), f32({7, 3})}},
      {ops::DenseGradWeight{true}, {f32({5, 2, 3}), f32({5, 2, 7})}},
      {ops::DenseGradWeight{}, {f32({5, 3}), f32({5, 7})}},
      {max_pool, {image}},
      {ops::MaxPool2dGrad{max_pool}, {image, max_out}},
      {avg_pool, {image}},
      {ops::AvgPool2dGrad{avg_pool, {9, 8}}, {avg_out}},
      {ops::AdaptiveAvgPool2d{{4, 3}}, {image}},
      {ops::AdaptiveAvgPool2dGrad{{9, 8}}, {f32({2, 4, 3, 6})}},
      {ops::Resize2d{{4, 13}, ResizeMode::kNearestCeil, ResizeGrid::kAsymmetric, {0.5, 1.625}},
       {image}},
      {ops::Resize2d{{5, 11}}, {image}},
      {ops::Resize2dGrad{{{5, 11}}, {9, 8}}, {f32({2, 5, 11, 6})}},
      {ops::GlobalAvgPool2d{}, {image}},
      {ops::GlobalAvgPool2dGrad{{9, 8}}, {f32({2, 6})}},
      {ops::GlobalMaxPool2d{}, {image}},
      {ops::GlobalMaxPool2dGrad{}, {image, f32({2, 6})}},
      {ops::BatchNorm{1e-3, 0.25, true}, norm},
      {ops::BatchNormTrain{1e-3, 0.25}, norm},
      {ops::BatchNormTrainGrad{}, norm_grad},
      {ops::BatchNormTrainGrad{}, {image, c6, c6, c6, image, f32({2, 6})}},
      {ops::BatchNormStatistics{1e-3, 0.25}, norm},
      {ops::BatchNormStatistics{1e-3, 0.25}, {image, c6, c6, c6, c6, f32({3, 6})}},
      {ops::BatchNormApply{}, {image, c6, c6, c6}},
      {ops::BatchNormApply{epilogue}, {image, c6, c6, c6, image}},
      {ops::BatchNormApply{epilogue}, {image, c6, c6, c6, image, c6, c6, c6}},
      {ops::BatchNormApplyGrad{ActivationKind::kLeakyRelu, 0.25},
       {image, c6, c6, c6, c6, c6, image}},
      {ops::BatchNormApplyGrad{ActivationKind::kRelu, 0.25},
       {image, c6, c6, c6, c6, c6, image, f32({2, 6})}},
      {ops::BatchNormMaxPool{max_pool, ActivationKind::kLeakyRelu, 0.25}, {image, c6, c6, c6}},
      {ops::BatchNormMaxPoolGrad{{max_pool, ActivationKind::kRelu6, 0.25}},
       {image, c6, c6, c6, c6, c6, max_out}},
      {ops::BatchNormInference{1e-3}, norm},
      {ops::BatchNormInferenceGrad{1e-3}, norm_grad},
      {ops::FoldBatchNorm{1e-3}, {weight, f32({4}), f32({4}), f32({4}), f32({4}), f32({4})}},
      {ops::FoldBatchNorm{}, {weight, f32({4}), f32({4}), f32({4}), f32({4})}},
      {lrn, {image}},
      {ops::LocalResponseNormGrad{lrn}, {image, image}},
      {ops::Activation{ActivationKind::kLeakyRelu, 0.3}, {image}},
      {ops::Activation{ActivationKind::kIdentity}, {f32({})}},
      {ops::Activation{ActivationKind::kRelu6}, {image}},
      {ops::ActivationGrad{ActivationKind::kScaledTanh, 0.3}, {image, image}},
      {ops::Add{}, {f32({2, 1, 3}), f32({4, 1})}},
      {ops::Subtract{}, {f32({3}), f32({2, 4, 3})}},
      {ops::Multiply{}, {f32({2, 1, 3}), f32({})}},
      {ops::Unary{UnaryKind::kHardSigmoid, 0.25, 0.375}, {image}},
      {ops::Unary{UnaryKind::kClip, -kInfinity, 6.5}, {image}},
      {ops::Unary{UnaryKind::kPower, 3.0}, {f32({})}},
      {ops::UnaryGrad{UnaryKind::kMish, 0.5, 0.25}, {image, image}},
      {ops::Binary{BinaryKind::kPrelu}, {image, f32({6})}},
      {ops::Binary{BinaryKind::kDivide}, {f32({2, 1, 3}), f32({4, 1})}},
      {ops::Binary{BinaryKind::kPower}, {f32({3}), f32({2, 4, 3})}},
      {ops::Binary{BinaryKind::kMaximum}, {f32({}), f32({3})}},
      {ops::Binary{BinaryKind::kPreluSlope}, {f32({3}), f32({3})}},
      {ops::Affine{0.1, -2.5e-300}, {image}},
      {ops::Cast{DType::kBFloat16}, {image}},
      {ops::Fill{{2, 0, 3}, DType::kInt64, -9007199254740992.0}, {}},
      {ops::Fill{{}, DType::kFloat32, -kInfinity}, {}},
      {ops::Dropout{0.25}, {image}},
      {ops::DropoutTrain{0.25, std::numeric_limits<std::int64_t>::min()},
       {image, i64({1}), i64({1})}},
      {ops::NormalizeImage{1.0 / 255.0, {0.5, 0.25, 0.125}, {0.1}, DType::kFloat64},
       {u8({2, 5, 5, 3})}},
      {ops::NormalizeImage{2.0, {}, {1, 2, 3, 4, 5, 6}, DType::kFloat32}, {image}},
      {ops::Softmax{}, {f32({5, 3})}},
      {ops::SoftmaxGrad{}, {f32({5, 3}), f32({5, 3})}},
      {ops::LogSoftmax{}, {f32({3})}},
      {ops::LogSoftmaxGrad{}, {f32({3}), f32({3})}},
      {ops::SoftmaxCrossEntropy{0.1}, {f32({5, 3}), i64({5})}},
      {ops::SoftmaxCrossEntropy{0.1}, {f32({5, 3}), f32({5, 3})}},
      {ops::SoftmaxCrossEntropyGrad{0.1}, {f32({5, 3}), i32({5}), f32({})}},
      {ops::MeanSquaredError{}, {f32({5, 3}), f32({5, 3})}},
      {ops::MeanSquaredErrorGrad{}, {f32({5, 3}), f32({5, 3}), f32({})}},
      {ops::TopKCorrect{2}, {f32({5, 3}), i64({5})}},
      {ops::Reduce{Reduction::kMean, {0, 2}, false}, {f32({2, 3, 4})}},
      {ops::Reduce{Reduction::kSum, {1}, true}, {f32({2, 3, 4})}},
      {ops::Reduce{Reduction::kSum, {}, false}, {f32({2, 3, 4})}},
      {ops::Reduce{Reduction::kMax, {1}, true}, {f32({2, 3, 4})}},
      {ops::ArgMax{1, true, true}, {f32({2, 3, 4})}},
      {ops::Broadcast{{4, 2, 3}}, {f32({2, 1})}},
      {ops::Concat{-2}, {f32({2, 3, 4}), f32({2, 0, 4}), f32({2, 5, 4})}},
      {ops::Slice{{0, 1, 4}, {2, -1, 0}}, {f32({2, 3, 4})}},
      {ops::Pad{{0, 1, 2}, {3, 0, 1}, -0.5}, {f32({2, 3, 4})}},
      {ops::Reshape{{0, -1}}, {f32({2, 3, 4})}},
      {ops::Reshape{{}}, {f32({1, 1})}},
      {ops::Transpose{{2, 0, 1}}, {f32({2, 3, 4})}},
      {ops::Take{{1, -1, 0, 1}}, {f32({2, 3})}},
      {ops::TakeGrad{{1, -1, 0, 1}, 2}, {f32({4, 3})}},
      {ops::TakeWindows{{4, 7}, 3.0, {1, 2, 255}}, {u8({2, 5, 5, 3}), i64({6, 8})}},
      {ops::Increment{}, {i64({1})}},
      {ops::ClipFactor{kInfinity}, {f32({2, 3}), f32({}), f32({4})}},
      {ops::SgdUpdate{}, {f32({2, 3}), f32({2, 3}), f32({1})}},
      {ops::SgdUpdate{0.9, true, 5e-4, 2.0, true},
       {f32({2, 3}), f32({2, 3}), f32({1}), f32({2, 3}), f32({})}},
      {ops::AdamUpdate{0.8, 0.99, 1e-6, 0.01, true, 0.5, true},
       {f32({2}), f32({2}), f32({1}), i64({1}), f32({2}), f32({2}), f32({})}},
      {ops::MuonUpdate{0.9, false, 0.01, 3, 0.5, true},
       {f32({3, 2}), f32({3, 2}), f32({1}), f32({3, 2}), f32({})}},
      {ops::EmaUpdate{0.99}, {f32({2, 3}), f32({2, 3}), i64({1})}},
      {ops::DenseSgdUpdate{true, {0.9, true, 5e-4, 2.0, false}},
       {f32({7, 3}), f32({5, 3}), f32({5, 7}), f32({1}), f32({7, 3})}},
      {ops::DenseSgdUpdate{}, {f32({7, 3}), f32({5, 2, 3}), f32({5, 2, 7}), f32({1})}},
      {ops::DenseAdamUpdate{false, {0.8, 0.99, 1e-6, 0.01, true, 0.5, false}},
       {f32({7, 3}), f32({5, 3}), f32({5, 7}), f32({1}), i64({1}), f32({7, 3}), f32({7, 3})}},
      {ops::LossScale{100, 2.0}, {f32({}), f32({}), i64({1})}},
      {ops::Commit{}, {f32({2}), f32({2}), f32({})}},
  };
}
