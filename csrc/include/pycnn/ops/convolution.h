#pragma once
#include "pycnn/ops/op.h"

/// \file
/// Convolution: csrc/ops/conv2d.cpp
namespace pycnn::ops {

/// Cross-correlation of images with filters.
///
///   output[n, oh, ow, oc] = bias[oc] + sum over (kh, kw, ic) of
///       input[n, oh*SH - top + kh*DH, ow*SW - left + kw*DW, g*IC/G + ic] * weight[oc, kh, kw, ic],
///       g = oc / (OC/G)
///
/// inputs:  input (N, H, W, IC) float; weight (OC, KH, KW, IC/G) float; optional bias (OC) float;
///          with epilogue.residual, last, a tensor of the output's shape
/// outputs: output (N, OH, OW, OC), OH = floor((H + top + bottom - (KH-1)*DH - 1) / SH) + 1, OW
///          likewise; with epilogue.moments, moments (3, OC) of the output as it is stored: mean,
///          what their type cannot hold of the mean, biased variance
struct Conv2d {
  Pair stride = {1, 1};     ///< pixels from one window to the next, (vertical, horizontal)
  Padding padding;          ///< rows and columns of zeros around the input
  Pair dilation = {1, 1};   ///< pixels from one kernel cell to the next, (vertical, horizontal)
  std::int64_t groups = 1;  ///< parts of the channels that do not mix; divides IC and OC
  Epilogue epilogue;        ///< set by compilation alone; not differentiable once set
  PYCNN_OP("conv2d", stride, padding, dilation, groups, epilogue)
};

/// Gradient of Conv2d for its input.
/// inputs:  grad_output (N, OH, OW, OC); weight (OC, KH, KW, IC/G); with finish.residual, what is
///          added (N, H, W, IC); with finish.relu, the ReLU's result (N, H, W, IC); with
///          finish.signs, the signs of that (BatchNormApply), of which kernels read the one or the
///          other; with `sums`, of the BatchNormApply that made the convolution's input: its input
///          (N, H, W, IC), batch_mean, factor, offset (IC)
/// outputs: grad_input (N, H, W, IC) with H, W from input_size; with `sums`, a second
///          result is (2, IC): over all pixels as they are stored the sum of what comes back
///          through the activation, and the sum of that times (input - batch_mean)
struct Conv2dGradInput {
  Pair stride = {1, 1};      ///< as of the Conv2d
  Padding padding;           ///< as of the Conv2d
  Pair dilation = {1, 1};    ///< as of the Conv2d
  std::int64_t groups = 1;   ///< as of the Conv2d
  Pair input_size = {0, 0};  ///< (H, W), which the output's size does not tell under a stride
  NormSums sums;             ///< set by compilation alone; not differentiable once set
  GradientEpilogue finish;   ///< likewise
  PYCNN_OP("conv2d_grad_input", stride, padding, dilation, groups, input_size, sums, finish)
};

/// Gradient of Conv2d for its weight and, with `bias`, for its bias.
/// inputs:  input (N, H, W, IC); grad_output (N, OH, OW, OC)
/// outputs: grad_weight (OC, KH, KW, IC/G) with KH, KW from kernel_size; with bias, grad_bias (OC)
/// The batch is summed in chunks that depend on the shapes alone, combined in a fixed tree.
struct Conv2dGradWeight {
  Pair stride = {1, 1};       ///< as of the Conv2d
  Padding padding;            ///< as of the Conv2d
  Pair dilation = {1, 1};     ///< as of the Conv2d
  std::int64_t groups = 1;    ///< as of the Conv2d
  Pair kernel_size = {1, 1};  ///< (KH, KW)
  bool bias = false;          ///< whether grad_bias is a second result
  PYCNN_OP("conv2d_grad_weight", stride, padding, dilation, groups, kernel_size, bias)
};

}  // namespace pycnn::ops
