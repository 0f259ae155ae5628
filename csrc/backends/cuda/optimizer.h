#pragma once
#include <cstdint>

namespace pycnn {
struct DeviceQueue;
}

// Updates of float32 parameters. Learning rate, step and factor are read on the device; where
// a factor is below 0, nothing changes.
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

// The formula stands at ops::LossScale.
struct LossScaleParams {
  const float* norm;
  const float* scale;
  const std::int64_t* good_steps;
  float* factor;
  float* new_norm;
  float* new_scale;
  std::int64_t* new_good_steps;
  std::int64_t growth_interval;
  double max_norm;
};
void loss_scale(DeviceQueue& queue, const LossScaleParams& params);

// output = *factor < 0 ? previous : value, of elements of that size. It may lie on either.
void commit(DeviceQueue& queue, int item_bytes, const void* value, const void* previous,
            const float* factor, void* output, std::int64_t count);

}  // namespace pycnn::cuda
