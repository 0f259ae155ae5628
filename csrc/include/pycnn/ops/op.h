#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "pycnn/export.h"
#include "pycnn/tensor.h"

/// \file
/// What the structs of all ops are made of: kinds, attributes, symbols.
namespace pycnn {

/// A tensor that will exist when a program runs; valid only within the graph that made it.
struct Symbol {
  int node = -1;   ///< index in `Graph::nodes()`; -1 for none
  int output = 0;  ///< which of the node's results, from 0
  /// Identity of the graph, to refuse foreign symbols.
  std::uint32_t graph = 0;
  bool operator==(const Symbol&) const = default;  ///< Same tensor of the same graph.
};

class GradientContext;
using Specs = std::span<const TensorSpec>;  ///< Of all inputs or results of an op, in order.

/// (vertical, horizontal).
using Pair = std::array<std::int64_t, 2>;

/// Pixels added at each side of an image.
struct Padding {                                          /// At this side, at least 0. @{
  std::int64_t top = 0, bottom = 0, left = 0, right = 0;  ///@}
  bool operator==(const Padding&) const = default;        ///< Same on every side.
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
  bool residual = false;  ///< whether a tensor of the output's shape is added
  ActivationKind activation = ActivationKind::kIdentity;  ///< applied last
  double slope = 0.01;                                    ///< of kLeakyRelu, at least 0
  /// Of a convolution: whether a batch norm wants the moments of the result (measure_outputs).
  bool moments = false;
  /// Of a BatchNormApply: whether gradients want to know where its ReLU was open (keep_signs).
  bool signs = false;
  bool operator==(const Epilogue&) const = default;  ///< Same in every field.
};

/// What the gradient of a convolution gives of the batch norm before it, beside its result. Only
/// compile/measure_outputs sets it.
struct NormSums {
  bool wanted = false;                                    ///< Whether it is asked for it at all.
  ActivationKind activation = ActivationKind::kIdentity;  ///< of the BatchNormApply
  double slope = 0.01;                                    ///< of kLeakyRelu, at least 0
  bool operator==(const NormSums&) const = default;       ///< Same in every field.
};

/// What becomes of the gradient of a convolution's input, where another gradient of the same tensor
/// is added to it, and where a ReLU made that tensor: `sum + residual` where the ReLU's result is
/// above zero (or NaN), else 0. Only compile/finish_gradients sets it, and compile/keep_signs the
/// signs.
struct GradientEpilogue {
  bool residual = false;  ///< whether a tensor of the gradient's shape is added
  bool relu = false;      ///< whether it goes back through a ReLU
  bool signs = false;     ///< of that: whether the signs of its result are given, too
  bool operator==(const GradientEpilogue&) const = default;  ///< Same in every field.
};

/// What ops::Reduce makes of the elements along an axis.
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

/// The attributes of an op that is part of another one stand among the other's own.
template <class Field, class V>
void visit_field(const char* name, Field& field, V& v) {
  if constexpr (requires { Field::kName; })
    Field::fields(field, v);
  else
    v(name, field);
}

/// What an op's struct ends with: its name in graph text and its attributes. That makes `kName`,
/// `fields`, which calls v(name, value) for each attribute, and the two members of every op.
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

}  // namespace ops

}  // namespace pycnn
