#pragma once
#include "pycnn/ops/op.h"

/// \file
/// Softmax and losses: csrc/ops/softmax.cpp, ops/loss.cpp
namespace pycnn::ops {

/// Over the last axis; the maximum is subtracted first.
/// inputs: input (..., C) float.
/// outputs: output (..., C)
struct Softmax {
  PYCNN_OP("softmax")
};

/// inputs: output (..., C); grad_output (..., C).
/// outputs: grad_input (..., C)
struct SoftmaxGrad {
  PYCNN_OP("softmax_grad")
};

/// inputs: input (..., C) float.
/// outputs: output (..., C)
struct LogSoftmax {
  PYCNN_OP("log_softmax")
};

/// inputs: output (..., C); grad_output (..., C).
/// outputs: grad_input (..., C)
struct LogSoftmaxGrad {
  PYCNN_OP("log_softmax_grad")
};

/// Mean over the batch of -sum over c of target[c] * log softmax(logits)[c]. With label smoothing s
/// the target is (1 - s) * target + s / C. An integer label outside [0, C) makes that sample's loss
/// NaN (callers check labels first).
/// inputs:  logits (N, C) float; labels (N) i64 or i32, or soft targets (N, C) float of the logits'
/// type
/// outputs: loss () float: a scalar. N of at least 1
struct SoftmaxCrossEntropy {
  double label_smoothing = 0.0;  ///< in [0, 1]
  PYCNN_OP("softmax_cross_entropy", label_smoothing)
};

/// inputs:  logits (N, C); labels or targets as above; grad_loss ()
/// outputs: grad_logits (N, C). Targets get no gradient.
struct SoftmaxCrossEntropyGrad {
  double label_smoothing = 0.0;  ///< of the SoftmaxCrossEntropy
  PYCNN_OP("softmax_cross_entropy_grad", label_smoothing)
};

/// Mean over all elements of (input - target)^2.
/// inputs: input, target, same shape, float.
/// outputs: loss ()
struct MeanSquaredError {
  PYCNN_OP("mean_squared_error")
};

/// inputs: input, target, grad_loss ().
/// outputs: grad_input (the target's gradient is its negative)
struct MeanSquaredErrorGrad {
  PYCNN_OP("mean_squared_error_grad")
};

/// How many rows have their label among the k largest scores (ties: the lower index ranks first; a
/// NaN score is never among them).
/// inputs: scores (N, C) float; labels (N) i64 or i32.
/// outputs: count () of the scores' type. No gradient.
struct TopKCorrect {
  std::int64_t k = 1;  ///< from 1 to C
  PYCNN_OP("top_k_correct", k)
};

}  // namespace pycnn::ops
