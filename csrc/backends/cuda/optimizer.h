#pragma once
#include <cstdint>

namespace pycnn {
struct DeviceQueue;
}

// Updates of float32 parameters. Learning rate, step and clipping factor are read on the device.
// Every tensor may be written where it was read.
namespace pycnn::cuda {

struct SgdParams {
  const float* parameter;
  const float* gradient;
  const float* learning_rate;
  const float* velocity;  // null: none
  const float* factor;    // null: 1
  float* new_parameter;
  float* new_velocity;
  float rate_scale, momentum, weight_decay;
  bool nesterov;
  std::int64_t count;
};
void sgd(DeviceQueue& queue, const SgdParams& params);

struct AdamParams {
  const float* parameter;
  const float* gradient;
  const float* learning_rate;
  const std::int64_t* step;
  const float* mean;
  const float* variance;
  const float* factor;  // null: 1
  float* new_parameter;
  float* new_mean;
  float* new_variance;
  double beta1, beta2, eps, weight_decay, rate_scale;
  bool decoupled;
  std::int64_t count;
};
void adam(DeviceQueue& queue, const AdamParams& params);

struct EmaParams {
  const float* average;
  const float* value;
  const std::int64_t* step;
  float* output;
  double decay;
  std::int64_t count;
};
void ema(DeviceQueue& queue, const EmaParams& params);

}  // namespace pycnn::cuda
