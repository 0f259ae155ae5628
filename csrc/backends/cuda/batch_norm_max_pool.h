#pragma once
#include "backends/cuda/batch_norm.h"
#include "backends/cuda/pool.h"

// Max pooling of images that a batch norm, its activation and rounding make of the input meanwhile.
// Windows have fewer than 255 taps.
namespace pycnn::cuda {

// y = activate((input - mean) * factor + offset)
struct PooledNorm {
  const void* input;
  const float* mean;
  const float* factor;
  const float* offset;
  Curve curve;
};

void batch_norm_max_pool(DeviceQueue& queue, Image image, const PoolShape& shape,
                         const PooledNorm& norm, void* output);

// Of the windows' gradients. Their winners are found once, beside the two sums of the batch norm,
// which are taken window by window; `params` are those of the batch norm, whose grad_output is the
// pool's output's. Scratch is 16-byte aligned.
std::int64_t batch_norm_max_pool_grad_scratch_bytes(const PoolShape& shape);
void batch_norm_max_pool_grad(DeviceQueue& queue, Image image, const PoolShape& shape,
                              const GradientParams& params, void* scratch);

}  // namespace pycnn::cuda
