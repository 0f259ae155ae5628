#pragma once
#include "pycnn/ops/op.h"
#include "pycnn/ops/pool.h"

/// \file
/// Normalisation: csrc/ops/batch_norm.cpp, ops/local_response_norm.cpp
namespace pycnn::ops {

/// Batch normalisation over all axes but the last (Ioffe, Szegedy 2015), as recorded:
/// compile/specialize_mode replaces it by BatchNormTrain or BatchNormInference. `frozen` keeps the
/// running statistics also while training.
/// inputs:  input (..., C) float; scale (C); shift (C); running_mean (C); running_var (C)
/// outputs: output (..., C)
struct BatchNorm {
  double eps = 1e-5;      ///< added to the variance, above 0
  double momentum = 0.1;  ///< running = (1 - momentum) * running + momentum * batch, as PyTorch
  bool frozen = false;    ///< normalises by the running statistics always
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
  double eps = 1e-5;      ///< added to the variance, above 0
  double momentum = 0.1;  ///< as of BatchNorm, in [0, 1]
  PYCNN_OP("batch_norm_train", eps, momentum)
};

/// inputs:  input (..., C); scale (C); batch_mean (C); batch_inv_std (C); grad_output (..., C);
///          optional sums (2, C), known already: of grad_output, and of it times (input -
///          batch_mean)
/// outputs: grad_input (..., C); grad_scale (C); grad_shift (C)
struct BatchNormTrainGrad {
  PYCNN_OP("batch_norm_train_grad")
};

/// The first half of BatchNormTrain: what it measures. compile/split_batch_norm makes both halves.
/// inputs:  as BatchNorm; optional moments (3, C) of the input, known already (Conv2d), which then
///          is not read
/// outputs: batch_mean (C); batch_inv_std (C); new_running_mean (C); new_running_var (C);
///          factor (C) = scale * batch_inv_std; offset (C) = shift - factor * (mean - batch_mean),
///          which is shift but for what the type of batch_mean cannot hold of the mean
struct BatchNormStatistics {
  double eps = 1e-5;      ///< added to the variance, above 0
  double momentum = 0.1;  ///< as of BatchNorm, in [0, 1]
  PYCNN_OP("batch_norm_statistics", eps, momentum)
};

/// The second half: output = activation((input - batch_mean) * factor + offset + residual). Equal
/// inputs give equal bits, so that a result may be computed again instead of kept.
/// inputs:  input (..., C) float; batch_mean, factor, offset (C); with epilogue.residual a tensor
/// of
///          the input's shape, and optional residual_mean, residual_factor, residual_offset (C):
///          then (residual - residual_mean) * residual_factor + residual_offset is added, which
///          only compile/fuse_residual_norm asks for
/// outputs: output (..., C). The activation is the identity, relu, relu6 or leaky_relu. With
///          epilogue.signs, whose activation is relu, also signs (..., C/8) uint8: bit c % 8 of
///          byte c / 8 is 1 where the output, as it is stored, is above zero or NaN. 8 divides C
///          then.
struct BatchNormApply {
  Epilogue epilogue;  ///< residual, activation and signs
  PYCNN_OP("batch_norm_apply", epilogue)
};

/// Gradient of both halves and of the activation, whose slope follows from the input.
/// inputs:  input (..., C); scale, batch_mean, batch_inv_std, factor, offset (C);
///          grad_output (..., C); optional sums (2, C), known already, as of BatchNormTrainGrad but
///          of what comes back through the activation
/// outputs: grad_input (..., C); grad_scale (C); grad_shift (C)
struct BatchNormApplyGrad {
  ActivationKind activation = ActivationKind::kRelu;  ///< of the BatchNormApply
  double slope = 0.01;                                ///< of kLeakyRelu, at least 0
  PYCNN_OP("batch_norm_apply_grad", activation, slope)
};

/// MaxPool2d of a BatchNormApply, whose result is nowhere stored. Equal to the two in every bit.
/// Only compile/fuse_max_pool makes it.
/// inputs:  input (N, H, W, C) float; batch_mean, factor, offset (C)
/// outputs: output (N, OH, OW, C)
struct BatchNormMaxPool {
  MaxPool2d pool;                                     ///< of what was normalised and activated
  ActivationKind activation = ActivationKind::kRelu;  ///< as of BatchNormApply
  double slope = 0.01;                                ///< of kLeakyRelu, at least 0
  PYCNN_OP("batch_norm_max_pool", pool, activation, slope)
};

/// Gradient of BatchNormMaxPool and of the statistics, as of BatchNormApplyGrad. The windows'
/// winners follow from the input.
/// inputs:  input (N, H, W, C); scale, batch_mean, batch_inv_std, factor, offset (C);
///          grad_output (N, OH, OW, C)
/// outputs: grad_input (N, H, W, C); grad_scale (C); grad_shift (C)
struct BatchNormMaxPoolGrad {
  BatchNormMaxPool forward;  ///< what it is the gradient of
  PYCNN_OP("batch_norm_max_pool_grad", forward)
};

/// output = (input - running_mean) / sqrt(running_var + eps) * scale + shift
/// inputs: as BatchNorm.
/// outputs: output (..., C)
struct BatchNormInference {
  double eps = 1e-5;  ///< added to the variance, above 0
  PYCNN_OP("batch_norm_inference", eps)
};

/// inputs:  input (..., C); scale (C); running_mean (C); running_var (C); grad_output (..., C)
/// outputs: grad_input (..., C); grad_scale (C); grad_shift (C)
struct BatchNormInferenceGrad {
  double eps = 1e-5;  ///< of the BatchNormInference
  PYCNN_OP("batch_norm_inference_grad", eps)
};

/// A batch norm of running statistics joined to the convolution or dense layer before it
/// (compile/fold_batch_norm):
///   folded_weight[oc, ...] = weight[oc, ...] * f[oc],  f = scale / sqrt(running_var + eps)
///   folded_bias[oc] = (bias[oc] - running_mean[oc]) * f[oc] + shift[oc]
/// inputs:  weight (OC, ...); scale, shift, running_mean, running_var (OC); optional bias (OC)
/// outputs: folded_weight (OC, ...); folded_bias (OC)
struct FoldBatchNorm {
  double eps = 1e-5;  ///< of the BatchNorm folded
  PYCNN_OP("fold_batch_norm", eps)
};

/// Across channels (Krizhevsky et al. 2012; alpha is divided by size, as PyTorch):
///   output[..., c] = input[..., c] / (k + alpha / size * sum over j in [c - size/2, c +
///   (size-1)/2] of input[..., j]^2)^beta
/// inputs: input (..., C) float.
/// outputs: output (..., C)
struct LocalResponseNorm {
  std::int64_t size = 5;  ///< channels in the sum, at least 1
  double alpha = 1e-4;    ///< weight of the mean square, at least 0
  double beta = 0.75;     ///< exponent, at least 0
  double k = 1.0;         ///< keeps the divisor from 0, above 0
  PYCNN_OP("local_response_norm", size, alpha, beta, k)
};

/// inputs: input (..., C); grad_output (..., C).
/// outputs: grad_input (..., C)
struct LocalResponseNormGrad {
  LocalResponseNorm norm;  ///< what it is the gradient of
  PYCNN_OP("local_response_norm_grad", norm)
};

}  // namespace pycnn::ops
