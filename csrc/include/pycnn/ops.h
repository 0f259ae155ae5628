#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pycnn/export.h"
#include "pycnn/tensor.h"

/// \file
/// The vocabulary: every op is a plain struct here, `Op` is the variant of all of them.
///
/// An op says what is computed: its attributes (`fields`, written once; printing, parsing,
/// comparing and the Python classes come from it), the shapes and types of its results (`infer`,
/// which throws ShapeError, DTypeError or ArgumentError with the numbers) and how gradients flow
/// through it (`gradient`). How it is computed is a backend's business. Images are (N, H, W, C),
/// convolution weights (OC, KH, KW, IC / groups).
///
/// "float" below means f32 or f64, the same for all floating inputs of one op.
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

enum class Reduction : std::uint8_t { kSum, kMean };

/// What comes back through relu and relu6, given grad_output. The gradient is kExact; the others
/// make pictures of what a unit responds to.
enum class ReluRule : std::uint8_t {
  kExact,   ///< grad_output where the unit is open
  kGuided,  ///< grad_output where the unit is open and grad_output > 0 (Springenberg et al. 2015)
  kDeconvnet,  ///< max(grad_output, 0), open or not (Zeiler, Fergus 2014)
};

namespace ops {

#define PYCNN_OP_MEMBERS                                       \
  PYCNN_API std::vector<TensorSpec> infer(Specs inputs) const; \
  PYCNN_API void gradient(GradientContext& context) const;

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
  static constexpr const char* kName = "conv2d";
  Pair stride = {1, 1};
  Padding padding;
  Pair dilation = {1, 1};
  std::int64_t groups = 1;
  Epilogue epilogue;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("stride", self.stride), v("padding", self.padding), v("dilation", self.dilation),
        v("groups", self.groups), v("epilogue", self.epilogue);
  }
  PYCNN_OP_MEMBERS
};

/// Gradient of Conv2d for its input.
/// inputs:  grad_output (N, OH, OW, OC); weight (OC, KH, KW, IC/G)
/// outputs: grad_input (N, H, W, IC) with H, W from input_size
struct Conv2dGradInput {
  static constexpr const char* kName = "conv2d_grad_input";
  Pair stride = {1, 1};
  Padding padding;
  Pair dilation = {1, 1};
  std::int64_t groups = 1;
  Pair input_size = {0, 0};
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("stride", self.stride), v("padding", self.padding), v("dilation", self.dilation),
        v("groups", self.groups), v("input_size", self.input_size);
  }
  PYCNN_OP_MEMBERS
};

/// Gradient of Conv2d for its weight and, with `bias`, for its bias.
/// inputs:  input (N, H, W, IC); grad_output (N, OH, OW, OC)
/// outputs: grad_weight (OC, KH, KW, IC/G) with KH, KW from kernel_size; with bias, grad_bias (OC)
/// The batch is summed in chunks that depend on the shapes alone, combined in a fixed tree.
struct Conv2dGradWeight {
  static constexpr const char* kName = "conv2d_grad_weight";
  Pair stride = {1, 1};
  Padding padding;
  Pair dilation = {1, 1};
  std::int64_t groups = 1;
  Pair kernel_size = {1, 1};
  bool bias = false;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("stride", self.stride), v("padding", self.padding), v("dilation", self.dilation),
        v("groups", self.groups), v("kernel_size", self.kernel_size), v("bias", self.bias);
  }
  PYCNN_OP_MEMBERS
};

// ---- Dense: ops/dense.cpp

/// Fully connected layer: output[..., o] = bias[o] + sum over i of input[..., i] * weight[o, i].
/// inputs:  input (..., IN) float, rank at least 2; weight (OUT, IN); optional bias (OUT); with
/// epilogue.residual, last,
///          a tensor of the output's shape
/// outputs: output (..., OUT)
struct Dense {
  static constexpr const char* kName = "dense";
  Epilogue epilogue;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("epilogue", self.epilogue);
  }
  PYCNN_OP_MEMBERS
};

/// inputs: grad_output (..., OUT); weight (OUT, IN). outputs: grad_input (..., IN)
struct DenseGradInput {
  static constexpr const char* kName = "dense_grad_input";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// inputs: input (..., IN); grad_output (..., OUT). outputs: grad_weight (OUT, IN); with bias,
/// grad_bias (OUT)
struct DenseGradWeight {
  static constexpr const char* kName = "dense_grad_weight";
  bool bias = false;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("bias", self.bias);
  }
  PYCNN_OP_MEMBERS
};

// ---- Pooling: ops/pool.cpp
// Output size: floor((H + top + bottom - (KH-1)*DH - 1) / SH) + 1; with ceil_mode the division
// rounds up, but no window starts in the bottom or right padding (as PyTorch). Padding per side is
// at most half of the window.

/// Largest value of each window. Padding never wins; NaN wins; ties go to the first cell in
/// row-major order. inputs: input (N, H, W, C) float. outputs: output (N, OH, OW, C)
struct MaxPool2d {
  static constexpr const char* kName = "max_pool2d";
  Pair kernel_size = {2, 2};
  Pair stride = {2, 2};
  Padding padding;
  Pair dilation = {1, 1};
  bool ceil_mode = false;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("kernel_size", self.kernel_size), v("stride", self.stride), v("padding", self.padding),
        v("dilation", self.dilation), v("ceil_mode", self.ceil_mode);
  }
  PYCNN_OP_MEMBERS
};

/// inputs: input (N, H, W, C); grad_output (N, OH, OW, C). outputs: grad_input (N, H, W, C)
struct MaxPool2dGrad {
  static constexpr const char* kName = "max_pool2d_grad";
  MaxPool2d pool;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    MaxPool2d::fields(self.pool, v);
  }
  PYCNN_OP_MEMBERS
};

/// Mean of each window, over the cells inside image + padding (count_include_pad) or inside the
/// image only. inputs: input (N, H, W, C) float. outputs: output (N, OH, OW, C)
struct AvgPool2d {
  static constexpr const char* kName = "avg_pool2d";
  Pair kernel_size = {2, 2};
  Pair stride = {2, 2};
  Padding padding;
  bool ceil_mode = false;
  bool count_include_pad = true;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("kernel_size", self.kernel_size), v("stride", self.stride), v("padding", self.padding),
        v("ceil_mode", self.ceil_mode), v("count_include_pad", self.count_include_pad);
  }
  PYCNN_OP_MEMBERS
};

/// inputs: grad_output (N, OH, OW, C). outputs: grad_input (N, H, W, C) with H, W from input_size
struct AvgPool2dGrad {
  static constexpr const char* kName = "avg_pool2d_grad";
  AvgPool2d pool;
  Pair input_size = {0, 0};
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    AvgPool2d::fields(self.pool, v);
    v("input_size", self.input_size);
  }
  PYCNN_OP_MEMBERS
};

/// Mean of OH x OW windows that cover the image evenly, whatever its size: window i spans
/// [floor(i * H / OH), ceil((i + 1) * H / OH)), columns likewise (as PyTorch). inputs: input (N, H,
/// W, C) float. outputs: output (N, OH, OW, C) with OH, OW from output_size. Costs nothing where H,
/// W are OH, OW.
struct AdaptiveAvgPool2d {
  static constexpr const char* kName = "adaptive_avg_pool2d";
  Pair output_size = {1, 1};
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("output_size", self.output_size);
  }
  PYCNN_OP_MEMBERS
};

/// inputs: grad_output (N, OH, OW, C). outputs: grad_input (N, H, W, C) with H, W from input_size
struct AdaptiveAvgPool2dGrad {
  static constexpr const char* kName = "adaptive_avg_pool2d_grad";
  Pair input_size = {0, 0};
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("input_size", self.input_size);
  }
  PYCNN_OP_MEMBERS
};

/// inputs: input (N, H, W, C) float. outputs: mean over H and W, (N, C)
struct GlobalAvgPool2d {
  static constexpr const char* kName = "global_avg_pool2d";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// inputs: grad_output (N, C). outputs: grad_input (N, H, W, C) with H, W from input_size
struct GlobalAvgPool2dGrad {
  static constexpr const char* kName = "global_avg_pool2d_grad";
  Pair input_size = {0, 0};
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("input_size", self.input_size);
  }
  PYCNN_OP_MEMBERS
};

/// inputs: input (N, H, W, C) float. outputs: maximum over H and W, (N, C); NaN wins; ties go to
/// the first cell
struct GlobalMaxPool2d {
  static constexpr const char* kName = "global_max_pool2d";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// inputs: input (N, H, W, C); grad_output (N, C). outputs: grad_input (N, H, W, C)
struct GlobalMaxPool2dGrad {
  static constexpr const char* kName = "global_max_pool2d_grad";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

// ---- Normalisation: ops/batch_norm.cpp, ops/local_response_norm.cpp

/// Batch normalisation over all axes but the last (Ioffe, Szegedy 2015), as recorded:
/// compile/specialize_mode replaces it by BatchNormTrain or BatchNormInference. `frozen` keeps the
/// running statistics also while training. inputs:  input (..., C) float; scale (C); shift (C);
/// running_mean (C); running_var (C) outputs: output (..., C)
struct BatchNorm {
  static constexpr const char* kName = "batch_norm";
  double eps = 1e-5;
  double momentum = 0.1;  ///< running = (1 - momentum) * running + momentum * batch, as PyTorch
  bool frozen = false;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("eps", self.eps), v("momentum", self.momentum), v("frozen", self.frozen);
  }
  PYCNN_OP_MEMBERS
};

/// Normalises by the batch's own mean and (biased) variance; running_var takes the unbiased one.
/// inputs:  as BatchNorm
/// outputs: output (..., C); batch_mean (C); batch_inv_std (C), 1 / sqrt(var + eps);
/// new_running_mean (C);
///          new_running_var (C)
/// Statistics in two passes or by Welford in chunks that depend on the shape alone. One value per
/// channel: ArgumentError.
struct BatchNormTrain {
  static constexpr const char* kName = "batch_norm_train";
  double eps = 1e-5;
  double momentum = 0.1;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("eps", self.eps), v("momentum", self.momentum);
  }
  PYCNN_OP_MEMBERS
};

/// inputs:  input (..., C); scale (C); batch_mean (C); batch_inv_std (C); grad_output (..., C)
/// outputs: grad_input (..., C); grad_scale (C); grad_shift (C)
struct BatchNormTrainGrad {
  static constexpr const char* kName = "batch_norm_train_grad";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// output = (input - running_mean) / sqrt(running_var + eps) * scale + shift
/// inputs: as BatchNorm. outputs: output (..., C)
struct BatchNormInference {
  static constexpr const char* kName = "batch_norm_inference";
  double eps = 1e-5;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("eps", self.eps);
  }
  PYCNN_OP_MEMBERS
};

/// inputs:  input (..., C); scale (C); running_mean (C); running_var (C); grad_output (..., C)
/// outputs: grad_input (..., C); grad_scale (C); grad_shift (C)
struct BatchNormInferenceGrad {
  static constexpr const char* kName = "batch_norm_inference_grad";
  double eps = 1e-5;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("eps", self.eps);
  }
  PYCNN_OP_MEMBERS
};

/// A batch norm of running statistics joined to the convolution or dense layer before it
/// (compile/fold_batch_norm):
///   folded_weight[oc, ...] = weight[oc, ...] * f[oc],  f = scale / sqrt(running_var + eps)
///   folded_bias[oc] = (bias[oc] - running_mean[oc]) * f[oc] + shift[oc]
/// inputs:  weight (OC, ...); scale, shift, running_mean, running_var (OC); optional bias (OC)
/// outputs: folded_weight (OC, ...); folded_bias (OC)
struct FoldBatchNorm {
  static constexpr const char* kName = "fold_batch_norm";
  double eps = 1e-5;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("eps", self.eps);
  }
  PYCNN_OP_MEMBERS
};

/// Across channels (Krizhevsky et al. 2012; alpha is divided by size, as PyTorch):
///   output[..., c] = input[..., c] / (k + alpha / size * sum over j in [c - size/2, c +
///   (size-1)/2] of input[..., j]^2)^beta
/// inputs: input (..., C) float. outputs: output (..., C)
struct LocalResponseNorm {
  static constexpr const char* kName = "local_response_norm";
  std::int64_t size = 5;
  double alpha = 1e-4;
  double beta = 0.75;
  double k = 1.0;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("size", self.size), v("alpha", self.alpha), v("beta", self.beta), v("k", self.k);
  }
  PYCNN_OP_MEMBERS
};

/// inputs: input (..., C); grad_output (..., C). outputs: grad_input (..., C)
struct LocalResponseNormGrad {
  static constexpr const char* kName = "local_response_norm_grad";
  LocalResponseNorm norm;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    LocalResponseNorm::fields(self.norm, v);
  }
  PYCNN_OP_MEMBERS
};

// ---- Element-wise: ops/activation.cpp, ops/elementwise.cpp

/// inputs: input, any shape, float. outputs: output, same
struct Activation {
  static constexpr const char* kName = "activation";
  ActivationKind kind = ActivationKind::kRelu;
  double slope = 0.01;  ///< of kLeakyRelu, at least 0
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("kind", self.kind), v("slope", self.slope);
  }
  PYCNN_OP_MEMBERS
};

/// The derivative follows from the output alone for every kind. inputs: output; grad_output.
/// outputs: grad_input
struct ActivationGrad {
  static constexpr const char* kName = "activation_grad";
  ActivationKind kind = ActivationKind::kRelu;
  double slope = 0.01;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("kind", self.kind), v("slope", self.slope);
  }
  PYCNN_OP_MEMBERS
};

/// a + b with NumPy broadcasting. inputs: a, b float. outputs: the broadcast shape
struct Add {
  static constexpr const char* kName = "add";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// a - b with NumPy broadcasting.
struct Subtract {
  static constexpr const char* kName = "subtract";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// a * b with NumPy broadcasting.
struct Multiply {
  static constexpr const char* kName = "multiply";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// output = scale * input + offset with constant scalars.
struct Affine {
  static constexpr const char* kName = "affine";
  double scale = 1.0;
  double offset = 0.0;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("scale", self.scale), v("offset", self.offset);
  }
  PYCNN_OP_MEMBERS
};

/// A tensor of one value. inputs: none. outputs: (shape) of dtype
struct Fill {
  static constexpr const char* kName = "fill";
  Shape shape;
  DType dtype = DType::kFloat32;
  double value = 0.0;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("shape", self.shape), v("dtype", self.dtype), v("value", self.value);
  }
  PYCNN_OP_MEMBERS
};

/// Inverted dropout (Hinton et al. 2012), as recorded: specialize_mode removes it for inference and
/// otherwise makes it DropoutTrain with the program's seed and step. inputs: input float. outputs:
/// output, same shape
struct Dropout {
  static constexpr const char* kName = "dropout";
  double p = 0.5;  ///< probability of zero, in [0, 1)
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("p", self.p);
  }
  PYCNN_OP_MEMBERS
};

/// output[i] = keep(seed, step, stream, i) ? input[i] / (1 - p) : 0. The gradient is the same op on
/// grad_output. keep: word i % 4 of Philox4x32-10 with key seed ^ stream and counter (i / 4, step),
/// unit_float(word) >= p. inputs: input float; seed i64 (1); step i64 (1). outputs: output
struct DropoutTrain {
  static constexpr const char* kName = "dropout_train";
  double p = 0.5;
  std::int64_t stream =
      0;  ///< tells the dropout layers of one program apart (hash of the layer's name)
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("p", self.p), v("stream", self.stream);
  }
  PYCNN_OP_MEMBERS
};

/// Images as decoded to numbers for the net: output[..., c] = (input[..., c] * scale - mean[c]) /
/// std[c]. inputs: input (..., C) u8 or float. outputs: (..., C) of dtype. mean and std are empty,
/// or one value, or C values. The gradient exists for float inputs.
struct NormalizeImage {
  static constexpr const char* kName = "normalize_image";
  double scale = 1.0;
  std::vector<double> mean;
  std::vector<double> std;
  DType dtype = DType::kFloat32;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("scale", self.scale), v("mean", self.mean), v("std", self.std), v("dtype", self.dtype);
  }
  PYCNN_OP_MEMBERS
};

// ---- Softmax and losses: ops/softmax.cpp, ops/loss.cpp

/// Over the last axis; the maximum is subtracted first. inputs: input (..., C) float. outputs:
/// output (..., C)
struct Softmax {
  static constexpr const char* kName = "softmax";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// inputs: output (..., C); grad_output (..., C). outputs: grad_input (..., C)
struct SoftmaxGrad {
  static constexpr const char* kName = "softmax_grad";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// inputs: input (..., C) float. outputs: output (..., C)
struct LogSoftmax {
  static constexpr const char* kName = "log_softmax";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// inputs: output (..., C); grad_output (..., C). outputs: grad_input (..., C)
struct LogSoftmaxGrad {
  static constexpr const char* kName = "log_softmax_grad";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// Mean over the batch of -sum over c of target[c] * log softmax(logits)[c]. With label smoothing s
/// the target is (1 - s) * target + s / C. An integer label outside [0, C) makes that sample's loss
/// NaN (callers check labels first). inputs:  logits (N, C) float; labels (N) i64 or i32, or soft
/// targets (N, C) float of the logits' type outputs: loss () float: a scalar. N of at least 1
struct SoftmaxCrossEntropy {
  static constexpr const char* kName = "softmax_cross_entropy";
  double label_smoothing = 0.0;  ///< in [0, 1]
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("label_smoothing", self.label_smoothing);
  }
  PYCNN_OP_MEMBERS
};

/// inputs:  logits (N, C); labels or targets as above; grad_loss ()
/// outputs: grad_logits (N, C). Targets get no gradient.
struct SoftmaxCrossEntropyGrad {
  static constexpr const char* kName = "softmax_cross_entropy_grad";
  double label_smoothing = 0.0;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("label_smoothing", self.label_smoothing);
  }
  PYCNN_OP_MEMBERS
};

/// Mean over all elements of (input - target)^2. inputs: input, target, same shape, float. outputs:
/// loss ()
struct MeanSquaredError {
  static constexpr const char* kName = "mean_squared_error";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// inputs: input, target, grad_loss (). outputs: grad_input (the target's gradient is its negative)
struct MeanSquaredErrorGrad {
  static constexpr const char* kName = "mean_squared_error_grad";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// How many rows have their label among the k largest scores (ties: the lower index ranks first; a
/// NaN score is never among them). inputs: scores (N, C) float; labels (N) i64 or i32. outputs:
/// count () of the scores' type. No gradient.
struct TopKCorrect {
  static constexpr const char* kName = "top_k_correct";
  std::int64_t k = 1;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("k", self.k);
  }
  PYCNN_OP_MEMBERS
};

// ---- Reductions: ops/reduce.cpp

/// inputs: input float. outputs: input's shape with `axes` (sorted, distinct, not negative)
/// removed, or 1 with keep_dims
struct Reduce {
  static constexpr const char* kName = "reduce";
  Reduction kind = Reduction::kSum;
  std::vector<std::int64_t> axes;
  bool keep_dims = false;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("kind", self.kind), v("axes", self.axes), v("keep_dims", self.keep_dims);
  }
  PYCNN_OP_MEMBERS
};

/// NumPy broadcast to `shape`. inputs: input. outputs: (shape)
struct Broadcast {
  static constexpr const char* kName = "broadcast";
  Shape shape;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("shape", self.shape);
  }
  PYCNN_OP_MEMBERS
};

// ---- Moving data: ops/concat.cpp, ops/pad.cpp, ops/reshape.cpp, ops/transpose.cpp, ops/take.cpp

/// inputs: one or more, equal but for `axis` (negative counts from the end). outputs: their
/// concatenation
struct Concat {
  static constexpr const char* kName = "concat";
  std::int64_t axis = -1;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("axis", self.axis);
  }
  PYCNN_OP_MEMBERS
};

/// The box [begin, begin + size) of a tensor. A size of -1 means to the end. inputs: input.
/// outputs: (size)
struct Slice {
  static constexpr const char* kName = "slice";
  std::vector<std::int64_t> begin;
  std::vector<std::int64_t> size;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("begin", self.begin), v("size", self.size);
  }
  PYCNN_OP_MEMBERS
};

/// Surrounds with `value`. inputs: input. outputs: axis i grows by before[i] + after[i] (both not
/// negative)
struct Pad {
  static constexpr const char* kName = "pad";
  std::vector<std::int64_t> before;
  std::vector<std::int64_t> after;
  double value = 0.0;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("before", self.before), v("after", self.after), v("value", self.value);
  }
  PYCNN_OP_MEMBERS
};

/// Same elements, other axes. One entry may be -1 (what is left), 0 keeps the input's axis. Costs
/// nothing at run time.
struct Reshape {
  static constexpr const char* kName = "reshape";
  Shape shape;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("shape", self.shape);
  }
  PYCNN_OP_MEMBERS
};

/// output axis i is input axis permutation[i].
struct Transpose {
  static constexpr const char* kName = "transpose";
  std::vector<std::int64_t> permutation;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("permutation", self.permutation);
  }
  PYCNN_OP_MEMBERS
};

/// output[i, ...] = input[indices[i], ...] along the first axis; index -1 gives zeros (partial
/// connection tables).
struct Take {
  static constexpr const char* kName = "take";
  std::vector<std::int64_t> indices;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("indices", self.indices);
  }
  PYCNN_OP_MEMBERS
};

/// inputs: grad_output (len(indices), ...). outputs: grad_input (rows, ...), rows not named are
/// zero; fixed order of sums
struct TakeGrad {
  static constexpr const char* kName = "take_grad";
  std::vector<std::int64_t> indices;
  std::int64_t rows = 0;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("indices", self.indices), v("rows", self.rows);
  }
  PYCNN_OP_MEMBERS
};

// ---- Training: ops/optimizer.cpp. Added by compile/append_update; none has a gradient

/// i64 (1) plus one.
struct Increment {
  static constexpr const char* kName = "increment";
  template <class Self, class V>
  static void fields(Self&, V&&) {}
  PYCNN_OP_MEMBERS
};

/// Factor that brings the global L2 norm of all inputs to at most max_norm: min(1, max_norm /
/// norm). Squares are summed in float64 in a fixed order. max_norm of infinity only measures.
/// inputs: one or more gradients. outputs: factor (); norm ()
struct ClipFactor {
  static constexpr const char* kName = "clip_factor";
  double max_norm = 1.0;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("max_norm", self.max_norm);
  }
  PYCNN_OP_MEMBERS
};

/// Stochastic gradient descent as PyTorch's:
///   g = factor * gradient + weight_decay * parameter;  velocity = momentum * velocity + g  (first
///   step too: velocity 0) parameter -= learning_rate * rate_scale * (nesterov ? g + momentum *
///   velocity : velocity)
/// inputs:  parameter; gradient; learning_rate f32 (1); with momentum, velocity; with `clipped`,
/// last, factor () outputs: parameter; with momentum, velocity
struct SgdUpdate {
  static constexpr const char* kName = "sgd_update";
  double momentum = 0.0;
  bool nesterov = false;
  double weight_decay = 0.0;
  double rate_scale = 1.0;
  bool clipped = false;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("momentum", self.momentum), v("nesterov", self.nesterov),
        v("weight_decay", self.weight_decay), v("rate_scale", self.rate_scale),
        v("clipped", self.clipped);
  }
  PYCNN_OP_MEMBERS
};

/// Adam (Kingma, Ba 2015) and, with decoupled weight decay, AdamW (Loshchilov, Hutter 2019), as
/// PyTorch's. inputs:  parameter; gradient; learning_rate f32 (1); step i64 (1), 0 at the first
/// update; mean; variance;
///          with `clipped`, last, factor ()
/// outputs: parameter; mean; variance
struct AdamUpdate {
  static constexpr const char* kName = "adam_update";
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  bool decoupled = false;
  double rate_scale = 1.0;
  bool clipped = false;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("beta1", self.beta1), v("beta2", self.beta2), v("eps", self.eps),
        v("weight_decay", self.weight_decay), v("decoupled", self.decoupled),
        v("rate_scale", self.rate_scale), v("clipped", self.clipped);
  }
  PYCNN_OP_MEMBERS
};

/// average = decay * average + (1 - decay) * value, decay at most (1 + step) / (10 + step) so that
/// early steps count. inputs: average; value; step i64 (1). outputs: average
struct EmaUpdate {
  static constexpr const char* kName = "ema_update";
  double decay = 0.999;
  template <class Self, class V>
  static void fields(Self& self, V&& v) {
    v("decay", self.decay);
  }
  PYCNN_OP_MEMBERS
};

#undef PYCNN_OP_MEMBERS

}  // namespace ops

using Op = std::variant<
    ops::Conv2d, ops::Conv2dGradInput, ops::Conv2dGradWeight, ops::Dense, ops::DenseGradInput,
    ops::DenseGradWeight, ops::MaxPool2d, ops::MaxPool2dGrad, ops::AvgPool2d, ops::AvgPool2dGrad,
    ops::AdaptiveAvgPool2d, ops::AdaptiveAvgPool2dGrad, ops::GlobalAvgPool2d,
    ops::GlobalAvgPool2dGrad, ops::GlobalMaxPool2d, ops::GlobalMaxPool2dGrad, ops::BatchNorm,
    ops::BatchNormTrain, ops::BatchNormTrainGrad, ops::BatchNormInference,
    ops::BatchNormInferenceGrad, ops::FoldBatchNorm, ops::LocalResponseNorm,
    ops::LocalResponseNormGrad, ops::Activation, ops::ActivationGrad, ops::Add, ops::Subtract,
    ops::Multiply, ops::Affine, ops::Fill, ops::Dropout, ops::DropoutTrain, ops::NormalizeImage,
    ops::Softmax, ops::SoftmaxGrad, ops::LogSoftmax, ops::LogSoftmaxGrad, ops::SoftmaxCrossEntropy,
    ops::SoftmaxCrossEntropyGrad, ops::MeanSquaredError, ops::MeanSquaredErrorGrad,
    ops::TopKCorrect, ops::Reduce, ops::Broadcast, ops::Concat, ops::Slice, ops::Pad, ops::Reshape,
    ops::Transpose, ops::Take, ops::TakeGrad, ops::Increment, ops::ClipFactor, ops::SgdUpdate,
    ops::AdamUpdate, ops::EmaUpdate>;

/// "conv2d", "max_pool2d", ...
PYCNN_API const char* op_name(const Op& op);
/// Result specs of an op; what `Graph::add` calls.
PYCNN_API std::vector<TensorSpec> infer(const Op& op, Specs inputs);

/// Names as they stand in graph text and in Python, and back (ArgumentError for an unknown one).
PYCNN_API const char* activation_name(ActivationKind kind);
PYCNN_API ActivationKind parse_activation(std::string_view name);
PYCNN_API const char* reduction_name(Reduction kind);
PYCNN_API Reduction parse_reduction(std::string_view name);
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
