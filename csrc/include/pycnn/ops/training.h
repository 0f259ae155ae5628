#pragma once
#include <limits>

#include "pycnn/ops/op.h"

/// \file
/// Training: csrc/ops/optimizer.cpp. Added by compile/append_update; none has a gradient.
namespace pycnn::ops {

/// i64 (1) plus one.
struct Increment {
  PYCNN_OP("increment")
};

/// Factor that brings the global L2 norm of all inputs to at most max_norm: min(1, max_norm /
/// norm). Squares are summed in float64 in a fixed order. max_norm of infinity only measures.
/// inputs: one or more gradients.
/// outputs: factor (); norm ()
struct ClipFactor {
  double max_norm = 1.0;  ///< above 0
  PYCNN_OP("clip_factor", max_norm)
};

/// Dynamic scaling of a loss whose gradients are f16 on their way: these were multiplied by
/// `scale`, and `norm` is that of all of them. Gradients of a step that are not all finite are not
/// to be taken: the factor is -1 then, which updates and Commit know as a step that changes
/// nothing.
///
///   finite:  norm / scale; factor = min(1, max_norm / that) / scale; a good step more, and at
///            growth_interval of them the scale is doubled and counting begins again
///   else:    factor = -1; the scale is halved, no good steps
///
/// The scale stays within 2^-24 and 2^24. One beyond, which somebody set, is brought to the nearer
/// limit (NaN to the upper one) by a step that changes nothing, whose norm is NaN.
/// inputs:  norm (), of ClipFactor; scale (); good_steps i64 (1)
/// outputs: factor (); norm (), of the gradients without the scale; scale (); good_steps
struct LossScale {
  std::int64_t growth_interval = 2000;                        ///< at least 1
  double max_norm = std::numeric_limits<double>::infinity();  ///< as ClipFactor's
  PYCNN_OP("loss_scale", growth_interval, max_norm)
};

/// value, or previous where the step changes nothing: factor is below 0.
/// inputs:  value, of any type; previous, like it; factor ()
/// outputs: like value
struct Commit {
  PYCNN_OP("commit")
};

/// Stochastic gradient descent as PyTorch's:
///   g = factor * gradient + weight_decay * parameter;  velocity = momentum * velocity + g  (first
///   step too: velocity 0) parameter -= learning_rate * rate_scale * (nesterov ? g + momentum *
///   velocity : velocity)
/// inputs:  parameter; gradient; learning_rate f32 (1); with momentum, velocity; with `clipped`,
/// last, factor (); where that is below 0, nothing changes
/// outputs: parameter; with momentum, velocity
struct SgdUpdate {
  double momentum = 0.0;      ///< in [0, 1]; 0: no velocity
  bool nesterov = false;      ///< looks ahead along the velocity; needs a momentum
  double weight_decay = 0.0;  ///< L2 penalty, at least 0
  double rate_scale = 1.0;    ///< of the parameter's group, on the learning rate
  bool clipped = false;       ///< whether factor, of ClipFactor or LossScale, is an input; else 1
  PYCNN_OP("sgd_update", momentum, nesterov, weight_decay, rate_scale, clipped)
};

/// Adam (Kingma, Ba 2015) and, with decoupled weight decay, AdamW (Loshchilov, Hutter 2019), as
/// PyTorch's.
/// inputs:  parameter; gradient; learning_rate f32 (1); step i64 (1), 0 at the first update; mean;
/// variance;
///          with `clipped`, last, factor (); where that is below 0, nothing changes
/// outputs: parameter; mean; variance
struct AdamUpdate {
  double beta1 = 0.9;         ///< decay of mean, in [0, 1)
  double beta2 = 0.999;       ///< decay of variance, in [0, 1)
  double eps = 1e-8;          ///< added to the root of the corrected variance, above 0
  double weight_decay = 0.0;  ///< at least 0
  bool decoupled = false;     ///< AdamW: decay shrinks the parameter and is no part of g
  double rate_scale = 1.0;    ///< of the parameter's group, on the learning rate
  bool clipped = false;       ///< whether factor, of ClipFactor or LossScale, is an input; else 1
  PYCNN_OP("adam_update", beta1, beta2, eps, weight_decay, decoupled, rate_scale, clipped)
};

/// DenseGradWeight and the SgdUpdate or AdamUpdate that alone takes its result, for some rows of
/// the weight at a time, so that the whole gradient never stands in memory (compile/fuse_update).
/// inputs:  parameter (OUT, IN); input (..., IN); grad_output (..., OUT); then as the update from
/// its
///          learning_rate on, without factor
/// outputs: as the update; with bias, last, grad_bias (OUT)
struct DenseSgdUpdate {
  bool bias = false;  ///< whether grad_bias is the last result
  SgdUpdate update;   ///< not clipped: the norm would need whole gradients
  PYCNN_OP("dense_sgd_update", bias, update)
};  /// As DenseSgdUpdate, with Adam.
struct DenseAdamUpdate {
  bool bias = false;  ///< whether grad_bias is the last result
  AdamUpdate update;  ///< not clipped: the norm would need whole gradients
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
///          `clipped`, last, factor (); where that is below 0, nothing changes
/// outputs: parameter; velocity
struct MuonUpdate {
  double momentum = 0.95;       ///< in [0, 1)
  bool nesterov = true;         ///< looks ahead along the velocity; needs a momentum
  double weight_decay = 0.0;    ///< decoupled, at least 0
  std::int64_t iterations = 5;  ///< from 1 to 100; 5 bring the values near enough
  double rate_scale = 1.0;      ///< of the parameter's group, on the learning rate
  bool clipped = false;         ///< whether factor, of ClipFactor or LossScale, is an input; else 1
  PYCNN_OP("muon_update", momentum, nesterov, weight_decay, iterations, rate_scale, clipped)
};

/// average = decay * average + (1 - decay) * value, decay at most (1 + step) / (10 + step) so that
/// early steps count.
/// inputs: average; value; step i64 (1).
/// outputs: average
struct EmaUpdate {
  double decay = 0.999;  ///< in [0, 1]; 0.999 averages about 1000 steps
  PYCNN_OP("ema_update", decay)
};

}  // namespace pycnn::ops
