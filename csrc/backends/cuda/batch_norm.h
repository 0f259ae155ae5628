#pragma once
#include "backends/cuda/curve.h"
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Batch norm of matrices (rows, channels), which images are, with `..._pitch` elements from row to
// row. Sums of a channel are taken in chunks of rows, combined in float64.
namespace pycnn::cuda {

std::int64_t batch_norm_scratch_bytes(std::int64_t rows, std::int64_t channels);

struct StatisticsParams {
  const void* input;
  const float* scale;
  const float* shift;
  const float* running_mean;
  const float* running_var;
  float* batch_mean;
  float* batch_inv_std;
  float* new_running_mean;  // these may be the old ones
  float* new_running_var;
  float* factor;  // (input - batch_mean) * factor + offset is the result
  float* offset;
  double eps, momentum;
  std::int64_t rows, channels, input_pitch;
  // (3, channels) that a convolution measured, its rows `moments_pitch` elements apart; null: none.
  const float* moments;
  std::int64_t moments_pitch;
};
void batch_norm_statistics(DeviceQueue& queue, Image image, const StatisticsParams& params,
                           void* scratch);

// output = activate((input - mean) * factor + offset + residual), where the residual may be
// normalised likewise.
struct ApplyParams {
  const void* input;
  const float* mean;
  const float* factor;
  const float* offset;
  const void* residual;        // null: none
  const float* residual_mean;  // null: added as it is
  const float* residual_factor;
  const float* residual_offset;
  void* output;
  Curve curve;
  std::int64_t rows, channels, input_pitch, residual_pitch, output_pitch;
  std::uint8_t* signs;  // of the output (numbers.h), whose channels 8 divides; null: none
};
void batch_norm_apply(DeviceQueue& queue, Image image, const ApplyParams& params);

struct GradientParams {
  const void* input;
  const void* grad_output;
  const float* scale;
  const float* mean;
  const float* inv_std;
  // Of the activation after it, if any: factor and offset as in ApplyParams.
  Curve curve;
  const float* factor;
  const float* offset;
  bool through_statistics;
  void* grad_input;
  float* grad_scale;
  float* grad_shift;
  std::int64_t rows, channels, input_pitch, grad_output_pitch, grad_input_pitch;
  const float* sums;  // (2, channels) that a convolution measured; null: none
};
void batch_norm_gradient(DeviceQueue& queue, Image image, const GradientParams& params,
                         void* scratch);

// inv_std = 1 / sqrt(var + eps), factor = scale * inv_std; each may be null.
void inference_factors(DeviceQueue& queue, const float* scale, const float* var, double eps,
                       float* inv_std, float* factor, std::int64_t channels);

struct FoldParams {
  const float* weight;
  const float* scale;
  const float* shift;
  const float* running_mean;
  const float* running_var;
  const float* bias;  // null: none
  float* folded_weight;
  float* folded_bias;
  double eps;
  std::int64_t channels, per_channel;
};
void fold_batch_norm(DeviceQueue& queue, const FoldParams& params);

}  // namespace pycnn::cuda
