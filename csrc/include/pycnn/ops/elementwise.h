#pragma once
#include "pycnn/ops/op.h"

/// \file
/// Element-wise: csrc/ops/activation.cpp, ops/elementwise.cpp, ops/unary.cpp, ops/binary.cpp
namespace pycnn::ops {

/// inputs: input, any shape, float.
/// outputs: output, same
struct Activation {
  ActivationKind kind = ActivationKind::kRelu;  ///< which function
  double slope = 0.01;                          ///< of kLeakyRelu, at least 0
  PYCNN_OP("activation", kind, slope)
};

/// The derivative follows from the output alone for every kind.
/// inputs: output; grad_output.
/// outputs: grad_input
struct ActivationGrad {
  ActivationKind kind = ActivationKind::kRelu;  ///< of the Activation
  double slope = 0.01;                          ///< of kLeakyRelu, at least 0
  PYCNN_OP("activation_grad", kind, slope)
};

/// a + b with NumPy broadcasting.
/// inputs: a, b float.
/// outputs: the broadcast shape
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

/// inputs: input, any shape, float.
/// outputs: output, same
struct Unary {
  UnaryKind kind = UnaryKind::kSilu;  ///< which function
  double a = 1.0;  ///< first constant of those kinds that name one; others ignore it
  double b = 0.0;  ///< second constant, likewise
  PYCNN_OP("unary", kind, a, b)
};

/// inputs: input; grad_output.
/// outputs: grad_input, 0 where the function is flat, whatever the grad_output
struct UnaryGrad {
  UnaryKind kind = UnaryKind::kSilu;  ///< of the Unary
  double a = 1.0;                     ///< of the Unary
  double b = 0.0;                     ///< of the Unary
  PYCNN_OP("unary_grad", kind, a, b)
};

/// kind(a, b) with NumPy broadcasting.
/// inputs: a, b float.
/// outputs: the broadcast shape. Of two equal numbers, minimum and maximum give either half of the
/// gradient.
struct Binary {
  BinaryKind kind = BinaryKind::kDivide;  ///< which function
  PYCNN_OP("binary", kind)
};

/// output = scale * input + offset with constant scalars.
struct Affine {
  double scale = 1.0;   ///< finite
  double offset = 0.0;  ///< finite
  PYCNN_OP("affine", scale, offset)
};

/// The same numbers in another type: to the nearest one, ties to even; NaN stays NaN, what is too
/// large becomes infinite. The gradient is cast back.
/// inputs: input, any shape, f32, f64, bf16 or f16.
/// outputs: output of dtype, one of these, same shape
struct Cast {
  DType dtype = DType::kFloat32;  ///< of the output
  PYCNN_OP("cast", dtype)
};

/// A tensor of one value.
/// inputs: none.
/// outputs: (shape) of dtype
struct Fill {
  Shape shape;                    ///< of the output; empty for a scalar
  DType dtype = DType::kFloat32;  ///< of the output, any
  double value = 0.0;             ///< of every element; dtype must be able to hold it
  PYCNN_OP("fill", shape, dtype, value)
};

/// Inverted dropout (Hinton et al. 2012), as recorded: specialize_mode removes it for inference and
/// otherwise makes it DropoutTrain with the program's seed and step.
/// inputs: input float.
/// outputs: output, same shape
struct Dropout {
  double p = 0.5;  ///< probability of zero, in [0, 1)
  PYCNN_OP("dropout", p)
};

/// output[i] = keep(seed, step, stream, i) ? input[i] / (1 - p) : 0. The gradient is the same op on
/// grad_output. keep: word i % 4 of Philox4x32-10 with key seed ^ stream and counter (i / 4, step),
/// unit_float(word) >= p.
/// inputs: input float; seed i64 (1); step i64 (1).
/// outputs: output
struct DropoutTrain {
  double p = 0.5;  ///< probability of zero, in [0, 1)
  std::int64_t stream =
      0;  ///< tells the dropout layers of one program apart (hash of the layer's name)
  PYCNN_OP("dropout_train", p, stream)
};

/// Images as decoded to numbers for the net: output[..., c] = (input[..., c] * scale - mean[c]) /
/// std[c].
/// inputs: input (..., C) u8 or float.
/// outputs: (..., C) of dtype. mean and std are empty, or one value, or C values. The gradient
/// exists for float inputs.
struct NormalizeImage {
  double scale = 1.0;             ///< first factor; 1 / 255 brings u8 to [0, 1]
  std::vector<double> mean;       ///< per channel, after scaling; empty: 0
  std::vector<double> std;        ///< per channel, after scaling, above 0; empty: 1
  DType dtype = DType::kFloat32;  ///< f32 or f64
  PYCNN_OP("normalize_image", scale, mean, std, dtype)
};

}  // namespace pycnn::ops
