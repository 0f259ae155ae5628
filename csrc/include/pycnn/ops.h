#pragma once
#include <cstdint>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "pycnn/ops/convolution.h"
#include "pycnn/ops/dense.h"
#include "pycnn/ops/elementwise.h"
#include "pycnn/ops/loss.h"
#include "pycnn/ops/move.h"
#include "pycnn/ops/norm.h"
#include "pycnn/ops/pool.h"
#include "pycnn/ops/reduce.h"
#include "pycnn/ops/training.h"

/// \file
/// The vocabulary: every op is a plain struct in one of ops/*.h, `Op` holds any one of them.
///
/// An op says what is computed: its attributes (`fields`, written once; printing, parsing,
/// comparing and the Python classes come from it), the shapes and types of its results (`infer`,
/// which throws ShapeError, DTypeError or ArgumentError with the numbers) and how gradients flow
/// through it (`gradient`). How it is computed is a backend's business. Images are (N, H, W, C),
/// convolution weights (OC, KH, KW, IC / groups).
///
/// "float" below means f32 or f64, the same for all floating inputs of one op. The images of
/// convolution, dense, pooling, normalisation, element-wise ops and dropout (activations, residuals
/// and the gradients of these) may also be bf16 or f16: then parameters, statistics and their
/// gradients are f32, and what is computed is computed in f32 and rounded when it is stored.
/// Convolution and dense multiply weights rounded to the images' type. f16 is computed on GPUs
/// only.
namespace pycnn {

/// Every op there is, a new one last in its family.
using AnyOp = std::variant<
    ops::Conv2d, ops::Conv2dGradInput, ops::Conv2dGradWeight, ops::Dense, ops::DenseGradInput,
    ops::DenseGradWeight, ops::MaxPool2d, ops::MaxPool2dGrad, ops::AvgPool2d, ops::AvgPool2dGrad,
    ops::AdaptiveAvgPool2d, ops::AdaptiveAvgPool2dGrad, ops::Resize2d, ops::Resize2dGrad,
    ops::GlobalAvgPool2d, ops::GlobalAvgPool2dGrad, ops::GlobalMaxPool2d, ops::GlobalMaxPool2dGrad,
    ops::BatchNorm, ops::BatchNormTrain, ops::BatchNormTrainGrad, ops::BatchNormStatistics,
    ops::BatchNormApply, ops::BatchNormApplyGrad, ops::BatchNormMaxPool, ops::BatchNormMaxPoolGrad,
    ops::BatchNormInference, ops::BatchNormInferenceGrad, ops::FoldBatchNorm,
    ops::LocalResponseNorm, ops::LocalResponseNormGrad, ops::Activation, ops::ActivationGrad,
    ops::Add, ops::Subtract, ops::Multiply, ops::Unary, ops::UnaryGrad, ops::Binary, ops::Affine,
    ops::Cast, ops::Fill, ops::Dropout, ops::DropoutTrain, ops::NormalizeImage, ops::Softmax,
    ops::SoftmaxGrad, ops::LogSoftmax, ops::LogSoftmaxGrad, ops::SoftmaxCrossEntropy,
    ops::SoftmaxCrossEntropyGrad, ops::MeanSquaredError, ops::MeanSquaredErrorGrad,
    ops::TopKCorrect, ops::Reduce, ops::ArgMax, ops::Broadcast, ops::Concat, ops::Slice, ops::Pad,
    ops::Reshape, ops::Transpose, ops::Take, ops::TakeGrad, ops::TakeWindows, ops::Increment,
    ops::ClipFactor, ops::SgdUpdate, ops::AdamUpdate, ops::MuonUpdate, ops::EmaUpdate,
    ops::DenseSgdUpdate, ops::DenseAdamUpdate, ops::LossScale, ops::Commit>;

/// One op of any kind; std::visit, std::get_if and std::holds_alternative work on it. A class and
/// not an alias, so that copying and destroying so many alternatives is compiled once and not in
/// every file that holds a node.
class PYCNN_API Op : public AnyOp {
 public:
  Op();  ///< A Conv2d with default attributes.
  template <class T>
  requires requires { T::kName; }
  Op(T op) : AnyOp(std::in_place_type<T>, std::move(op)) {}  ///< Any op is an Op.
  Op(const Op& other);                                       ///< Same kind and attributes.
  Op(Op&& other) noexcept;                                   ///< Likewise; `other` keeps its kind.
  Op& operator=(const Op& other);                            ///< As the constructor.
  Op& operator=(Op&& other) noexcept;                        ///< As the constructor.
  ~Op();
};

/// One op of each kind, with default attributes, in the order of `AnyOp`.
PYCNN_API const std::vector<Op>& each_op();

/// "conv2d", "max_pool2d", ...
PYCNN_API const char* op_name(const Op& op);
/// Result specs of an op; what `Graph::add` calls.
PYCNN_API std::vector<TensorSpec> infer(const Op& op, Specs inputs);
/// Names in graph text and in Python, and back (ArgumentError for an unknown one).
///@{
PYCNN_API const char* activation_name(ActivationKind kind);
PYCNN_API ActivationKind parse_activation(std::string_view name);
PYCNN_API const char* reduction_name(Reduction kind);
PYCNN_API Reduction parse_reduction(std::string_view name);
PYCNN_API const char* unary_name(UnaryKind kind);
PYCNN_API UnaryKind parse_unary(std::string_view name);
PYCNN_API const char* binary_name(BinaryKind kind);
PYCNN_API BinaryKind parse_binary(std::string_view name);
PYCNN_API const char* resize_mode_name(ResizeMode mode);
PYCNN_API ResizeMode parse_resize_mode(std::string_view name);
PYCNN_API const char* resize_grid_name(ResizeGrid grid);
PYCNN_API ResizeGrid parse_resize_grid(std::string_view name);
PYCNN_API const char* relu_rule_name(ReluRule rule);
PYCNN_API ReluRule parse_relu_rule(std::string_view name);
///@}
/// What one execution of an op has to do at least.
struct Cost {
  std::int64_t macs = 0;         ///< multiply-adds of convolutions and dense layers; 0 for all else
  std::int64_t other_flops = 0;  ///< additions, comparisons, multiplications of everything else
  std::int64_t bytes = 0;        ///< inputs read once, outputs written once
};
PYCNN_API Cost cost(const Op& op, Specs inputs, Specs outputs);  ///< Of one run, by the specs.

}  // namespace pycnn
