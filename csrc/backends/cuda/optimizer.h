#pragma once
#include <cstdint>

#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Updates of float32 parameters. Learning rate, step and factor are read on the device; where
// a factor is below 0, nothing changes.
// Every tensor may be written where it was read. Several tensors at a time, at most kMostTensors,
// differ in what is marked as their own; each may have up to 2^31 - 1 elements. A new parameter is
// written once more, rounded to 16 bits, where that is asked for; a gradient may be of any type of
// images.
namespace pycnn::cuda {

constexpr int kMostTensors = 39;  // what fits the parameters of a launch

struct SgdParams {
  struct Tensor {
    const float* parameter;
    const void* gradient;
    const float* velocity;  // null: none, of all
    float* new_parameter;
    float* new_velocity;
    void* rounded;  // the new parameter; null: not wanted
    float rate_scale, weight_decay;
    std::int64_t count;
    Image gradient_type;
  } own;
  const float* learning_rate;
  const float* factor;  // null: 1
  float momentum;
  bool nesterov;
  Image rounds_to;
};
void sgd(DeviceQueue& queue, const SgdParams& params);
void sgd_of_all(DeviceQueue& queue, const SgdParams* params, int count);

struct AdamParams {
  struct Tensor {
    const float* parameter;
    const void* gradient;
    const float* mean;
    const float* variance;
    float* new_parameter;
    float* new_mean;
    float* new_variance;
    void* rounded;  // the new parameter; null: not wanted
    double weight_decay, rate_scale;
    std::int64_t count;
    Image gradient_type;
  } own;
  const float* learning_rate;
  const std::int64_t* step;
  const float* factor;  // null: 1
  double beta1, beta2, eps;
  bool decoupled;
  Image rounds_to;
};
void adam(DeviceQueue& queue, const AdamParams& params);
void adam_of_all(DeviceQueue& queue, const AdamParams* params, int count);

struct EmaParams {
  struct Tensor {
    const float* average;
    const float* value;
    float* output;
    std::int64_t count;
  } own;
  const std::int64_t* step;
  double decay;
};
void ema(DeviceQueue& queue, const EmaParams& params);
void ema_of_all(DeviceQueue& queue, const EmaParams* params, int count);

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
