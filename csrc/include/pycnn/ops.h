#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "pycnn/export.h"
#include "pycnn/tensor.h"

/// \file
/// The vocabulary: every op is a plain struct here, `Op` holds any one of them.
///
/// An op says what is computed: its attributes (`fields`, written once; printing, parsing,
/// comparing and the Python classes come from it), the shapes and types of its results (`infer`,
/// which throws ShapeError, DTypeError or ArgumentError with the numbers) and how gradients flow
/// through it (`gradient`). How it is computed is a backend's business. Images are (N, H, W, C),
/// convolution weights (OC, KH, KW, IC / groups).
///
/// "float" below means f32 or f64, the same for all floating inputs of one op. The images of
/// convolution, dense, pooling, normalisation, element-wise ops and dropout (activations, residuals
/// and the gradients of these) may also be bf16: then parameters, statistics and their gradients
/// are f32, and what is computed is computed in f32 and rounded when it is stored. Convolution and
/// dense multiply weights rounded to bf16.
namespace pycnn {

/// A tensor that will exist when a program runs; valid only within the graph that made it.
struct Symbol {
  int node = -1;
  int output = 0;
  /// Identity of the graph, to refuse foreign symbols.
  std::uint32_t graph = 0;
  bool operator==(const Symbol&) const = default;
};

class GradientContext;
using Specs = std::span<const TensorSpec>;

/// (vertical, horizontal).
using Pair = std::array<std::int64_t, 2>;

/// Pixels added at each side of an image.
struct Padding {
  std::int64_t top = 0, bottom = 0, left = 0, right = 0;
  bool operator==(const Padding&) const = default;
};

/// Element-wise non-linearities. Used by ops::Activation and in the epilogue of convolution and
/// dense.
enum class ActivationKind : std::uint8_t {
  kIdentity,
  kRelu,        ///< max(x, 0); NaN stays NaN
  kRelu6,       ///< min(max(x, 0), 6), Howard et al. 2017; NaN stays NaN
  kLeakyRelu,   ///< x > 0 ? x : slope * x
  kSigmoid,     ///< 1 / (1 + exp(-x))
  kTanh,        ///< tanh(x)
  kScaledTanh,  ///< 1.7159 tanh(2x/3), LeCun et al. 1998
};

/// What joins a convolution or dense layer after the sum: `activation(sum + bias + residual)`. Only
/// compile/fuse_epilogue sets it; the residual, if any, is the op's last input.
struct Epilogue {
  bool residual = false;
  ActivationKind activation = ActivationKind::kIdentity;
  double slope = 0.01;
  bool operator==(const Epilogue&) const = default;
};

enum class Reduction : std::uint8_t { kSum, kMean, kMax };

/// Element-wise functions of one number with constants a and b, which stand alone (ActivationKind
/// has those that join a convolution). NaN stays NaN. At a kink the derivative is that of one side,
/// of kClip 1 on its bounds, of kAbs 0 at 0.
enum class UnaryKind : std::uint8_t {
  kAbs,
  kCelu,  ///< x > 0 ? x : a * (exp(x / a) - 1), a > 0, Barron 2017
  kClip,  ///< min(max(x, a), b)
  kElu,   ///< x > 0 ? x : a * (exp(x) - 1), Clevert et al. 2015
  kErf,   ///< the error function
  kExp,
  kGelu,         ///< x * (1 + erf(x / sqrt(2))) / 2, Hendrycks, Gimpel 2016
  kGeluTanh,     ///< x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2, same paper
  kHardSigmoid,  ///< min(max(a * x + b, 0), 1)
  kHardSwish,    ///< x * min(max(x / 6 + 1/2, 0), 1), Howard et al. 2019
  kLog,
  kMish,            ///< x * tanh(log(1 + exp(x))), Misra 2019
  kPower,           ///< x^a
  kReciprocal,      ///< 1 / x
  kReciprocalSqrt,  ///< 1 / sqrt(x)
  kSelu,            ///< 1.0507 * (x > 0 ? x : 1.6733 * (exp(x) - 1)), Klambauer et al. 2017
  kSilu,            ///< x / (1 + exp(-x)), Hendrycks, Gimpel 2016
  kSoftplus,        ///< log(1 + exp(a * x)) / a, a > 0
  kSoftsign,        ///< x / (1 + |x|)
  kSqrt,
  kThreshold,  ///< x > a ? x : b
};

/// Element-wise functions of two numbers a and b beyond sum, difference and product.
enum class BinaryKind : std::uint8_t {
  kDivide,      ///< a / b
  kMaximum,     ///< NaN wins
  kMinimum,     ///< NaN wins
  kPower,       ///< a^b
  kPrelu,       ///< a > 0 ? a : b * a, He et al. 2015
  kPreluSlope,  ///< a > 0 ? 1 : b
  kEqual,       ///< a == b ? 1 : 0
  kStep,        ///< a > b ? 1 : a == b ? 1/2 : 0
};

/// How a resized image takes its pixels from the given one.
enum class ResizeMode : std::uint8_t {
  kBilinear,          ///< between the four nearest
  kNearestFloor,      ///< the one at or before the place
  kNearestCeil,       ///< the one at or behind it
  kNearestRoundDown,  ///< the nearest, of two the former
  kNearestRoundUp,    ///< the nearest, of two the latter
};

/// Which place in the given image a pixel i of the resized one stands for, along an axis of N
/// pixels that becomes one of M. The scale is M / N unless given.
enum class ResizeGrid : std::uint8_t {
  kHalfPixel,         ///< (i + 1/2) / scale - 1/2
  kPytorchHalfPixel,  ///< the same, but 0 if M is 1
  kAsymmetric,        ///< i / scale
  kAlignCorners,      ///< i * (N - 1) / (M - 1), 0 if M is 1
};

/// What comes back through relu and relu6, given grad_output. The gradient is kExact; the others
/// make pictures of what a unit responds to.
enum class ReluRule : std::uint8_t {
  kExact,   ///< grad_output where the unit is open
  kGuided,  ///< grad_output where the unit is open and grad_output > 0 (Springenberg et al. 2015)
  kDeconvnet,  ///< max(grad_output, 0), open or not (Zeiler, Fergus 2014)
};

namespace ops {

// The attributes of an op that is part of another one stand among the other's own.
template <class Field, class V>
void visit_field(const char* name, Field& field, V& v) {
  if constexpr (requires { Field::kName; })
    Field::fields(field, v);
  else
    v(name, field);
}

// What an op's struct ends with: its name in graph text and its attributes. That makes `kName`,
// `fields`, which calls v(name, value) for each attribute, and the two members of every op.
// clang-format off
#define PYCNN_OP(name, ...)                                                   \
  static constexpr const char* kName = name;                                  \
  template <class Self, class V>                                              \
  static void fields([[maybe_unused]] Self& self, [[maybe_unused]] V&& v) {   \
    __VA_OPT__(PYCNN_RESCAN(PYCNN_FIELD(__VA_ARGS__)))                        \
  }                                                                           \
  PYCNN_API std::vector<TensorSpec> infer(Specs inputs) const;                \
  PYCNN_API void gradient(GradientContext& context) const;
#define PYCNN_FIELD(field, ...)                                               \
  visit_field(#field, self.field, v);                                         \
  __VA_OPT__(PYCNN_NEXT_FIELD PYCNN_PARENTHESES(__VA_ARGS__))
// The preprocessor does not recurse; each rescan expands one more attribute, 12 in all.
#define PYCNN_NEXT_FIELD() PYCNN_FIELD
#define PYCNN_PARENTHESES ()
#define PYCNN_RESCAN(...) PYCNN_RESCAN_4(PYCNN_RESCAN_4(PYCNN_RESCAN_4(__VA_ARGS__)))
#define PYCNN_RESCAN_4(...) PYCNN_RESCAN_1(PYCNN_RESCAN_1(PYCNN_RESCAN_1(PYCNN_RESCAN_1(__VA_ARGS__))))
#define PYCNN_RESCAN_1(...) __VA_ARGS__
// clang-format on

// ---- Convolution: ops/conv2d.cpp

/// Cross-correlation of images with filters.
///
///   output[n, oh, ow, oc] = bias[oc] + sum over (kh, kw, ic) of
///       input[n, oh*SH - top + kh*DH, ow*SW - left + kw*DW, g*IC/G + ic] * weight[oc, kh, kw, ic],
///       g = oc / (OC/G)
///
/// inputs:  input (N, H, W, IC) float; weight (OC, KH, KW, IC/G) float; optional bias (OC) float;
///          with epilogue.residual, last, a tensor of the output's shape
/// outputs: output (N, OH, OW, OC), OH = floor((H + top + bottom - (KH-1)*DH - 1) / SH) + 1, OW
/// likewise
struct Conv2d {
  Pair stride = {1, 1};
  Padding padding;
  Pair dilation = {1, 1};
  std::int64_t groups = 1;
  Epilogue epilogue;
  PYCNN_OP("conv2d", stride, padding, dilation, groups, epilogue)
};

/// Gradient of Conv2d for its input.
/// inputs:  grad_output (N, OH, OW, OC); weight (OC, KH, KW, IC/G)
/// outputs: grad_input (N, H, W, IC) with H, W from input_size
struct Conv2dGradInput {
  Pair stride = {1, 1};
  Padding padding;
  Pair dilation = {1, 1};
  std::int64_t groups = 1;
  Pair input_size = {0, 0};
  PYCNN_OP("conv2d_grad_input", stride, padding, dilation, groups, input_size)
};

/// Gradient of Conv2d for its weight and, with `bias`, for its bias.
/// inputs:  input (N, H, W, IC); grad_output (N, OH, OW, OC)
/// outputs: grad_weight (OC, KH, KW, IC/G) with KH, KW from kernel_size; with bias, grad_bias (OC)
/// The batch is summed in chunks that depend on the shapes alone, combined in a fixed tree.
struct Conv2dGradWeight {
  Pair stride = {1, 1};
  Padding padding;
  Pair dilation = {1, 1};
  std::int64_t groups = 1;
  Pair kernel_size = {1, 1};
  bool bias = false;
  PYCNN_OP("conv2d_grad_weight", stride, padding, dilation, groups, kernel_size, bias)
};

// ---- Dense: ops/dense.cpp

/// Fully connected layer: output[..., o] = bias[o] + sum over i of input[..., i] * weight[o, i].
/// inputs:  input (..., IN) float, rank at least 2; weight (OUT, IN); optional bias (OUT); with
/// epilogue.residual, last,
///          a tensor of the output's shape
/// outputs: output (..., OUT)
struct Dense {
  Epilogue epilogue;
  PYCNN_OP("dense", epilogue)
};

/// inputs: grad_output (..., OUT); weight (OUT, IN). outputs: grad_input (..., IN)
struct DenseGradInput {
  PYCNN_OP("dense_grad_input")
};

/// inputs: input (..., IN); grad_output (..., OUT). outputs: grad_weight (OUT, IN); with bias,
/// grad_bias (OUT)
struct DenseGradWeight {
  bool bias = false;
  PYCNN_OP("dense_grad_weight", bias)
};

// ---- Pooling: ops/pool.cpp
// Output size: floor((H + top + bottom - (KH-1)*DH - 1) / SH) + 1; with ceil_mode the division
// rounds up, but no window starts in the bottom or right padding (as PyTorch). Padding per side is
// at most half of the window.

/// Largest value of each window. Padding never wins; NaN wins; ties go to the first cell in
/// row-major order. inputs: input (N, H, W, C) float. outputs: output (N, OH, OW, C)
struct MaxPool2d {
  Pair kernel_size = {2, 2};
  Pair stride = {2, 2};
  Padding padding;
  Pair dilation = {1, 1};
  bool ceil_mode = false;
  PYCNN_OP("max_pool2d", kernel_size, stride, padding, dilation, ceil_mode)
};

/// inputs: input (N, H, W, C); grad_output (N, OH, OW, C). outputs: grad_input (N, H, W, C)
struct MaxPool2dGrad {
  MaxPool2d pool;
  PYCNN_OP("max_pool2d_grad", pool)
};

/// Mean of each window, over the cells inside image + padding (count_include_pad) or inside the
/// image only. inputs: input (N, H, W, C) float. outputs: output (N, OH, OW, C)
struct AvgPool2d {
  Pair kernel_size = {2, 2};
  Pair stride = {2, 2};
  Padding padding;
  bool ceil_mode = false;
  bool count_include_pad = true;
  PYCNN_OP("avg_pool2d", kernel_size, stride, padding, ceil_mode, count_include_pad)
};

/// inputs: grad_output (N, OH, OW, C). outputs: grad_input (N, H, W, C) with H, W from input_size
struct AvgPool2dGrad {
  AvgPool2d pool;
  Pair input_size = {0, 0};
  PYCNN_OP("avg_pool2d_grad", pool, input_size)
};

/// Mean of OH x OW windows that cover the image evenly, whatever its size: window i spans
/// [floor(i * H / OH), ceil((i + 1) * H / OH)), columns likewise (as PyTorch). inputs: input (N, H,
/// W, C) float. outputs: output (N, OH, OW, C) with OH, OW from output_size. Costs nothing where H,
/// W are OH, OW.
struct AdaptiveAvgPool2d {
  Pair output_size = {1, 1};
  PYCNN_OP("adaptive_avg_pool2d", output_size)
};

/// inputs: grad_output (N, OH, OW, C). outputs: grad_input (N, H, W, C) with H, W from input_size
struct AdaptiveAvgPool2dGrad {
  Pair input_size = {0, 0};
  PYCNN_OP("adaptive_avg_pool2d_grad", input_size)
};

/// Other numbers of rows and columns. Places outside the image count as the pixel at its border.
/// inputs: input (N, H, W, C) float. outputs: output (N, OH, OW, C) with OH, OW from output_size.
struct Resize2d {
  Pair output_size = {1, 1};
  ResizeMode mode = ResizeMode::kBilinear;
  ResizeGrid grid = ResizeGrid::kHalfPixel;
  std::vector<double> scales;  ///< of rows and columns; empty: output_size over the input's size
  PYCNN_OP("resize2d", output_size, mode, grid, scales)
};

/// inputs: grad_output (N, OH, OW, C). outputs: grad_input (N, H, W, C) with H, W from input_size
struct Resize2dGrad {
  Resize2d resize;
  Pair input_size = {0, 0};
  PYCNN_OP("resize2d_grad", resize, input_size)
};

/// inputs: input (N, H, W, C) float. outputs: mean over H and W, (N, C)
struct GlobalAvgPool2d {
  PYCNN_OP("global_avg_pool2d")
};

/// inputs: grad_output (N, C). outputs: grad_input (N, H, W, C) with H, W from input_size
struct GlobalAvgPool2dGrad {
  Pair input_size = {0, 0};
  PYCNN_OP("global_avg_pool2d_grad", input_size)
};

/// inputs: input (N, H, W, C) float. outputs: maximum over H and W, (N, C); NaN wins; ties go to
/// the first cell
struct GlobalMaxPool2d {
  PYCNN_OP("global_max_pool2d")
};

/// inputs: input (N, H, W, C); grad_output (N, C). outputs: grad_input (N, H, W, C)
struct GlobalMaxPool2dGrad {
  PYCNN_OP("global_max_pool2d_grad")
};

// ---- Normalisation: ops/batch_norm.cpp, ops/local_response_norm.cpp

/// Batch normalisation over all axes but the last (Ioffe, Szegedy 2015), as recorded:
/// compile/specialize_mode replaces it by BatchNormTrain or BatchNormInference. `frozen` keeps the
/// running statistics also while training. inputs:  input (..., C) float; scale (C); shift (C);
/// running_mean (C); running_var (C) outputs: output (..., C)
struct BatchNorm {
  double eps = 1e-5;
  double momentum = 0.1;  ///< running = (1 - momentum) * running + momentum * batch, as PyTorch
  bool frozen = false;
  PYCNN_OP("batch_norm", eps, momentum, frozen)
};

/// Normalises by the batch's own mean and (biased) variance; running_var takes the unbiased one.
/// inputs:  as BatchNorm
/// outputs: output (..., C); batch_mean (C); batch_inv_std (C), 1 / sqrt(var + eps);
/// new_running_mean (C);
///          new_running_var (C)
/// Statistics in two passes or by Welford in chunks that depend on the shape alone. One value per
/// channel: ArgumentError.
struct BatchNormTrain {
  double eps = 1e-5;
  double momentum = 0.1;
  PYCNN_OP("batch_norm_train", eps, momentum)
};

/// inputs:  input (..., C); scale (C); batch_mean (C); batch_inv_std (C); grad_output (..., C)
/// outputs: grad_input (..., C); grad_scale (C); grad_shift (C)
struct BatchNormTrainGrad {
  PYCNN_OP("batch_norm_train_grad")
};

/// The first half of BatchNormTrain: what it measures. compile/split_batch_norm makes both halves.
/// inputs:  as BatchNorm
/// outputs: batch_mean (C); batch_inv_std (C); new_running_mean (C); new_running_var (C);
///          factor (C) = scale * batch_inv_std; offset (C) = shift - factor * (mean - batch_mean),
///          which is shift but for what the type of batch_mean cannot hold of the mean
struct BatchNormStatistics {
  double eps = 1e-5;
  double momentum = 0.1;
  PYCNN_OP("batch_norm_statistics", eps, momentum)
};

/// The second half: output = activation((input - batch_mean) * factor + offset + residual). Equal
/// inputs give equal bits, so that a result may be computed again instead of kept.
/// inputs:  input (..., C) float; batch_mean, factor, offset (C); with epilogue.residual, last, a
///          tensor of the input's shape
/// outputs: output (..., C). The activation is the identity, relu, relu6 or leaky_relu.
struct BatchNormApply {
  Epilogue epilogue;
  PYCNN_OP("batch_norm_apply", epilogue)
};

/// Gradient of both halves and of the activation, whose slope follows from the input.
/// inputs:  input (..., C); scale, batch_mean, batch_inv_std, factor, offset (C);
///          grad_output (..., C)
/// outputs: grad_input (..., C); grad_scale (C); grad_shift (C)
struct BatchNormApplyGrad {
  ActivationKind activation = ActivationKind::kRelu;
  double slope = 0.01;
  PYCNN_OP("batch_norm_apply_grad", activation, slope)
};

/// output = (input - running_mean) / sqrt(running_var + eps) * scale + shift
/// inputs: as BatchNorm. outputs: output (..., C)
struct BatchNormInference {
  double eps = 1e-5;
  PYCNN_OP("batch_norm_inference", eps)
};

/// inputs:  input (..., C); scale (C); running_mean (C); running_var (C); grad_output (..., C)
/// outputs: grad_input (..., C); grad_scale (C); grad_shift (C)
struct BatchNormInferenceGrad {
  double eps = 1e-5;
  PYCNN_OP("batch_norm_inference_grad", eps)
};

/// A batch norm of running statistics joined to the convolution or dense layer before it
/// (compile/fold_batch_norm):
///   folded_weight[oc, ...] = weight[oc, ...] * f[oc],  f = scale / sqrt(running_var + eps)
///   folded_bias[oc] = (bias[oc] - running_mean[oc]) * f[oc] + shift[oc]
/// inputs:  weight (OC, ...); scale, shift, running_mean, running_var (OC); optional bias (OC)
/// outputs: folded_weight (OC, ...); folded_bias (OC)
struct FoldBatchNorm {
  double eps = 1e-5;
  PYCNN_OP("fold_batch_norm", eps)
};

/// Across channels (Krizhevsky et al. 2012; alpha is divided by size, as PyTorch):
///   output[..., c] = input[..., c] / (k + alpha / size * sum over j in [c - size/2, c +
///   (size-1)/2] of input[..., j]^2)^beta
/// inputs: input (..., C) float. outputs: output (..., C)
struct LocalResponseNorm {
  std::int64_t size = 5;
  double alpha = 1e-4;
  double beta = 0.75;
  double k = 1.0;
  PYCNN_OP("local_response_norm", size, alpha, beta, k)
};

/// inputs: input (..., C); grad_output (..., C). outputs: grad_input (..., C)
struct LocalResponseNormGrad {
  LocalResponseNorm norm;
  PYCNN_OP("local_response_norm_grad", norm)
};

// ---- Element-wise: ops/activation.cpp, ops/elementwise.cpp, ops/unary.cpp, ops/binary.cpp

/// inputs: input, any shape, float. outputs: output, same
struct Activation {
  ActivationKind kind = ActivationKind::kRelu;
  double slope = 0.01;  ///< of kLeakyRelu, at least 0
  PYCNN_OP("activation", kind, slope)
};

/// The derivative follows from the output alone for every kind. inputs: output; grad_output.
/// outputs: grad_input
struct ActivationGrad {
  ActivationKind kind = ActivationKind::kRelu;
  double slope = 0.01;
  PYCNN_OP("activation_grad", kind, slope)
};

/// a + b with NumPy broadcasting. inputs: a, b float. outputs: the broadcast shape
struct Add {
  PYCNN_OP("add")
};

/// a - b with NumPy broadcasting.
struct Subtract {
  PYCNN_OP("subtract")
};

/// a * b with NumPy broadcasting.
struct Multiply {
  PYCNN_OP("multiply")
};

/// inputs: input, any shape, float. outputs: output, same
struct Unary {
  UnaryKind kind = UnaryKind::kSilu;
  double a = 1.0;
  double b = 0.0;
  PYCNN_OP("unary", kind, a, b)
};

/// inputs: input; grad_output. outputs: grad_input, 0 where the function is flat, whatever the
/// grad_output
struct UnaryGrad {
  UnaryKind kind = UnaryKind::kSilu;
  double a = 1.0;
  double b = 0.0;
  PYCNN_OP("unary_grad", kind, a, b)
};

/// kind(a, b) with NumPy broadcasting. inputs: a, b float. outputs: the broadcast shape. Of two
/// equal numbers, minimum and maximum give either half of the gradient.
struct Binary {
  BinaryKind kind = BinaryKind::kDivide;
  PYCNN_OP("binary", kind)
};

/// output = scale * input + offset with constant scalars.
struct Affine {
  double scale = 1.0;
  double offset = 0.0;
  PYCNN_OP("affine", scale, offset)
};

/// The same numbers in another type: to the nearest one, ties to even; NaN stays NaN, what is too
/// large becomes infinite. The gradient is cast back. inputs: input, any shape, f32, f64, bf16 or
/// f16. outputs: output of dtype, one of these, same shape
struct Cast {
  DType dtype = DType::kFloat32;
  PYCNN_OP("cast", dtype)
};

/// A tensor of one value. inputs: none. outputs: (shape) of dtype
struct Fill {
  Shape shape;
  DType dtype = DType::kFloat32;
  double value = 0.0;
  PYCNN_OP("fill", shape, dtype, value)
};

/// Inverted dropout (Hinton et al. 2012), as recorded: specialize_mode removes it for inference and
/// otherwise makes it DropoutTrain with the program's seed and step. inputs: input float. outputs:
/// output, same shape
struct Dropout {
  double p = 0.5;  ///< probability of zero, in [0, 1)
  PYCNN_OP("dropout", p)
};

/// output[i] = keep(seed, step, stream, i) ? input[i] / (1 - p) : 0. The gradient is the same op on
/// grad_output. keep: word i % 4 of Philox4x32-10 with key seed ^ stream and counter (i / 4, step),
/// unit_float(word) >= p. inputs: input float; seed i64 (1); step i64 (1). outputs: output
struct DropoutTrain {
  double p = 0.5;
  std::int64_t stream =
      0;  ///< tells the dropout layers of one program apart (hash of the layer's name)
  PYCNN_OP("dropout_train", p, stream)
};

/// Images as decoded to numbers for the net: output[..., c] = (input[..., c] * scale - mean[c]) /
/// std[c]. inputs: input (..., C) u8 or float. outputs: (..., C) of dtype. mean and std are empty,
/// or one value, or C values. The gradient exists for float inputs.
struct NormalizeImage {
  double scale = 1.0;
  std::vector<double> mean;
  std::vector<double> std;
  DType dtype = DType::kFloat32;
  PYCNN_OP("normalize_image", scale, mean, std, dtype)
};

// ---- Softmax and losses: ops/softmax.cpp, ops/loss.cpp

/// Over the last axis; the maximum is subtracted first. inputs: input (..., C) float. outputs:
/// output (..., C)
struct Softmax {
  PYCNN_OP("softmax")
};

/// inputs: output (..., C); grad_output (..., C). outputs: grad_input (..., C)
struct SoftmaxGrad {
  PYCNN_OP("softmax_grad")
};

/// inputs: input (..., C) float. outputs: output (..., C)
struct LogSoftmax {
  PYCNN_OP("log_softmax")
};

/// inputs: output (..., C); grad_output (..., C). outputs: grad_input (..., C)
struct LogSoftmaxGrad {
  PYCNN_OP("log_softmax_grad")
};

/// Mean over the batch of -sum over c of target[c] * log softmax(logits)[c]. With label smoothing s
/// the target is (1 - s) * target + s / C. An integer label outside [0, C) makes that sample's loss
/// NaN (callers check labels first). inputs:  logits (N, C) float; labels (N) i64 or i32, or soft
/// targets (N, C) float of the logits' type outputs: loss () float: a scalar. N of at least 1
struct SoftmaxCrossEntropy {
  double label_smoothing = 0.0;  ///< in [0, 1]
  PYCNN_OP("softmax_cross_entropy", label_smoothing)
};

/// inputs:  logits (N, C); labels or targets as above; grad_loss ()
/// outputs: grad_logits (N, C). Targets get no gradient.
struct SoftmaxCrossEntropyGrad {
  double label_smoothing = 0.0;
  PYCNN_OP("softmax_cross_entropy_grad", label_smoothing)
};

/// Mean over all elements of (input - target)^2. inputs: input, target, same shape, float. outputs:
/// loss ()
struct MeanSquaredError {
  PYCNN_OP("mean_squared_error")
};

/// inputs: input, target, grad_loss (). outputs: grad_input (the target's gradient is its negative)
struct MeanSquaredErrorGrad {
  PYCNN_OP("mean_squared_error_grad")
};

/// How many rows have their label among the k largest scores (ties: the lower index ranks first; a
/// NaN score is never among them). inputs: scores (N, C) float; labels (N) i64 or i32. outputs:
/// count () of the scores' type. No gradient.
struct TopKCorrect {
  std::int64_t k = 1;
  PYCNN_OP("top_k_correct", k)
};

// ---- Reductions: ops/reduce.cpp, ops/arg_max.cpp

/// inputs: input float. outputs: input's shape with `axes` (sorted, distinct, not negative)
/// removed, or 1 with keep_dims. Of a maximum, NaN wins, and equal largest elements share the
/// gradient evenly.
struct Reduce {
  Reduction kind = Reduction::kSum;
  std::vector<std::int64_t> axes;
  bool keep_dims = false;
  PYCNN_OP("reduce", kind, axes, keep_dims)
};

/// Where along `axis` (negative counts from the end) the largest element is: the first of equal
/// ones, or with `last` the last; NaN counts as largest. inputs: input float, the axis not empty.
/// outputs: i64, input's shape without the axis, or 1 there with keep_dims. No gradient.
struct ArgMax {
  std::int64_t axis = -1;
  bool keep_dims = false;
  bool last = false;
  PYCNN_OP("arg_max", axis, keep_dims, last)
};

/// NumPy broadcast to `shape`. inputs: input. outputs: (shape)
struct Broadcast {
  Shape shape;
  PYCNN_OP("broadcast", shape)
};

// ---- Moving data: ops/concat.cpp, ops/pad.cpp, ops/reshape.cpp, ops/transpose.cpp, ops/take.cpp

/// inputs: one or more, equal but for `axis` (negative counts from the end). outputs: their
/// concatenation
struct Concat {
  std::int64_t axis = -1;
  PYCNN_OP("concat", axis)
};

/// The box [begin, begin + size) of a tensor. A size of -1 means to the end. inputs: input.
/// outputs: (size)
struct Slice {
  std::vector<std::int64_t> begin;
  std::vector<std::int64_t> size;
  PYCNN_OP("slice", begin, size)
};

/// Surrounds with `value`. inputs: input. outputs: axis i grows by before[i] + after[i] (both not
/// negative)
struct Pad {
  std::vector<std::int64_t> before;
  std::vector<std::int64_t> after;
  double value = 0.0;
  PYCNN_OP("pad", before, after, value)
};

/// Same elements, other axes. One entry may be -1 (what is left), 0 keeps the input's axis. Costs
/// nothing at run time.
struct Reshape {
  Shape shape;
  PYCNN_OP("reshape", shape)
};

/// output axis i is input axis permutation[i].
struct Transpose {
  std::vector<std::int64_t> permutation;
  PYCNN_OP("transpose", permutation)
};

/// output[i, ...] = input[indices[i], ...] along the first axis; index -1 gives zeros (partial
/// connection tables).
struct Take {
  std::vector<std::int64_t> indices;
  PYCNN_OP("take", indices)
};

/// inputs: grad_output (len(indices), ...). outputs: grad_input (rows, ...), rows not named are
/// zero; fixed order of sums
struct TakeGrad {
  std::vector<std::int64_t> indices;
  std::int64_t rows = 0;
  PYCNN_OP("take_grad", indices, rows)
};

// ---- Training: ops/optimizer.cpp. Added by compile/append_update; none has a gradient

/// i64 (1) plus one.
struct Increment {
  PYCNN_OP("increment")
};

/// Factor that brings the global L2 norm of all inputs to at most max_norm: min(1, max_norm /
/// norm). Squares are summed in float64 in a fixed order. max_norm of infinity only measures.
/// inputs: one or more gradients. outputs: factor (); norm ()
struct ClipFactor {
  double max_norm = 1.0;
  PYCNN_OP("clip_factor", max_norm)
};

/// Stochastic gradient descent as PyTorch's:
///   g = factor * gradient + weight_decay * parameter;  velocity = momentum * velocity + g  (first
///   step too: velocity 0) parameter -= learning_rate * rate_scale * (nesterov ? g + momentum *
///   velocity : velocity)
/// inputs:  parameter; gradient; learning_rate f32 (1); with momentum, velocity; with `clipped`,
/// last, factor () outputs: parameter; with momentum, velocity
struct SgdUpdate {
  double momentum = 0.0;
  bool nesterov = false;
  double weight_decay = 0.0;
  double rate_scale = 1.0;
  bool clipped = false;
  PYCNN_OP("sgd_update", momentum, nesterov, weight_decay, rate_scale, clipped)
};

/// Adam (Kingma, Ba 2015) and, with decoupled weight decay, AdamW (Loshchilov, Hutter 2019), as
/// PyTorch's. inputs:  parameter; gradient; learning_rate f32 (1); step i64 (1), 0 at the first
/// update; mean; variance;
///          with `clipped`, last, factor ()
/// outputs: parameter; mean; variance
struct AdamUpdate {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  bool decoupled = false;
  double rate_scale = 1.0;
  bool clipped = false;
  PYCNN_OP("adam_update", beta1, beta2, eps, weight_decay, decoupled, rate_scale, clipped)
};

/// DenseGradWeight and the SgdUpdate or AdamUpdate that alone takes its result, for some rows of
/// the weight at a time, so that the whole gradient never stands in memory (compile/fuse_update).
/// inputs:  parameter (OUT, IN); input (..., IN); grad_output (..., OUT); then as the update from
/// its
///          learning_rate on, without factor
/// outputs: as the update; with bias, last, grad_bias (OUT)
struct DenseSgdUpdate {
  bool bias = false;
  SgdUpdate update;
  PYCNN_OP("dense_sgd_update", bias, update)
};
struct DenseAdamUpdate {
  bool bias = false;
  AdamUpdate update;
  PYCNN_OP("dense_adam_update", bias, update)
};

/// Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon): momentum whose singular values
/// are all brought to about 1. The parameter counts as the matrix (first axis, all others), rows by
/// columns:
///   g = factor * gradient;  velocity = momentum * velocity + g  (first step too: velocity 0)
///   u = nesterov ? g + momentum * velocity : velocity
///   x = u / max(|u|, 1e-7), transposed if there are more rows than columns; `iterations` times
///   x = a x + (b s + c s s) x with s = x x^T and (a, b, c) = (3.4445, -4.7750, 2.0315)
///   rate = learning_rate * rate_scale
///   parameter = (1 - rate * weight_decay) * parameter - rate * sqrt(max(1, rows / columns)) * x
/// |u| is the Frobenius norm.
/// inputs:  parameter of two axes at least; gradient; learning_rate f32 (1); velocity; with
///          `clipped`, last, factor ()
/// outputs: parameter; velocity
struct MuonUpdate {
  double momentum = 0.95;
  bool nesterov = true;
  double weight_decay = 0.0;
  std::int64_t iterations = 5;
  double rate_scale = 1.0;
  bool clipped = false;
  PYCNN_OP("muon_update", momentum, nesterov, weight_decay, iterations, rate_scale, clipped)
};

/// average = decay * average + (1 - decay) * value, decay at most (1 + step) / (10 + step) so that
/// early steps count. inputs: average; value; step i64 (1). outputs: average
struct EmaUpdate {
  double decay = 0.999;
  PYCNN_OP("ema_update", decay)
};

#undef PYCNN_OP
#undef PYCNN_FIELD
#undef PYCNN_NEXT_FIELD
#undef PYCNN_PARENTHESES
#undef PYCNN_RESCAN
#undef PYCNN_RESCAN_4
#undef PYCNN_RESCAN_1

}  // namespace ops

/// Every op there is, in the order of the file.
using AnyOp = std::variant<
    ops::Conv2d, ops::Conv2dGradInput, ops::Conv2dGradWeight, ops::Dense, ops::DenseGradInput,
    ops::DenseGradWeight, ops::MaxPool2d, ops::MaxPool2dGrad, ops::AvgPool2d, ops::AvgPool2dGrad,
    ops::AdaptiveAvgPool2d, ops::AdaptiveAvgPool2dGrad, ops::Resize2d, ops::Resize2dGrad,
    ops::GlobalAvgPool2d, ops::GlobalAvgPool2dGrad, ops::GlobalMaxPool2d, ops::GlobalMaxPool2dGrad,
    ops::BatchNorm, ops::BatchNormTrain, ops::BatchNormTrainGrad, ops::BatchNormStatistics,
    ops::BatchNormApply, ops::BatchNormApplyGrad, ops::BatchNormInference,
    ops::BatchNormInferenceGrad, ops::FoldBatchNorm, ops::LocalResponseNorm,
    ops::LocalResponseNormGrad, ops::Activation, ops::ActivationGrad, ops::Add, ops::Subtract,
    ops::Multiply, ops::Unary, ops::UnaryGrad, ops::Binary, ops::Affine, ops::Cast, ops::Fill,
    ops::Dropout, ops::DropoutTrain, ops::NormalizeImage, ops::Softmax, ops::SoftmaxGrad,
    ops::LogSoftmax, ops::LogSoftmaxGrad, ops::SoftmaxCrossEntropy, ops::SoftmaxCrossEntropyGrad,
    ops::MeanSquaredError, ops::MeanSquaredErrorGrad, ops::TopKCorrect, ops::Reduce, ops::ArgMax,
    ops::Broadcast, ops::Concat, ops::Slice, ops::Pad, ops::Reshape, ops::Transpose, ops::Take,
    ops::TakeGrad, ops::Increment, ops::ClipFactor, ops::SgdUpdate, ops::AdamUpdate,
    ops::MuonUpdate, ops::EmaUpdate, ops::DenseSgdUpdate, ops::DenseAdamUpdate>;

/// One op of any kind; std::visit, std::get_if and std::holds_alternative work on it. A class and
/// not an alias, so that copying and destroying so many alternatives is compiled once and not in
/// every file that holds a node.
class PYCNN_API Op : public AnyOp {
 public:
  Op();
  template <class T>
  requires requires { T::kName; }
  Op(T op) : AnyOp(std::in_place_type<T>, std::move(op)) {}  // NOLINT: any op is an Op
  Op(const Op& other);
  Op(Op&& other) noexcept;
  Op& operator=(const Op& other);
  Op& operator=(Op&& other) noexcept;
  ~Op();
};

/// One op of each kind, with default attributes, in the order of `AnyOp`.
PYCNN_API const std::vector<Op>& each_op();

/// "conv2d", "max_pool2d", ...
PYCNN_API const char* op_name(const Op& op);
/// Result specs of an op; what `Graph::add` calls.
PYCNN_API std::vector<TensorSpec> infer(const Op& op, Specs inputs);

/// Names as they stand in graph text and in Python, and back (ArgumentError for an unknown one).
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

/// What one execution of an op has to do at least.
struct Cost {
  std::int64_t macs = 0;         ///< multiply-adds of convolutions and dense layers; 0 for all else
  std::int64_t other_flops = 0;  ///< additions, comparisons, multiplications of everything else
  std::int64_t bytes = 0;        ///< inputs read once, outputs written once
};
PYCNN_API Cost cost(const Op& op, Specs inputs, Specs outputs);

}  // namespace pycnn
