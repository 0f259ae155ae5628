#pragma once
#include "pycnn/ops/op.h"

/// \file
/// Dense: csrc/ops/dense.cpp
namespace pycnn::ops {

/// Fully connected layer: output[..., o] = bias[o] + sum over i of input[..., i] * weight[o, i].
/// inputs:  input (..., IN) float, rank at least 2; weight (OUT, IN); optional bias (OUT); with
/// epilogue.residual, last,
///          a tensor of the output's shape
/// outputs: output (..., OUT)
struct Dense {
  Epilogue epilogue;  ///< set by compilation alone; not differentiable once set
  PYCNN_OP("dense", epilogue)
};

/// inputs: grad_output (..., OUT); weight (OUT, IN).
/// outputs: grad_input (..., IN)
struct DenseGradInput {
  PYCNN_OP("dense_grad_input")
};

/// inputs: input (..., IN); grad_output (..., OUT).
/// outputs: grad_weight (OUT, IN); with bias, grad_bias (OUT)
struct DenseGradWeight {
  bool bias = false;  ///< whether grad_bias is a second result
  PYCNN_OP("dense_grad_weight", bias)
};

}  // namespace pycnn::ops
