#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "backends/cpu/optimizer.h"
#include "backends/cpu/vector_variants.h"
#include "pycnn/ops.h"

// The numbers of an update that are the same for all elements, worked out in float64.
namespace pycnn::cpu {

// For a step that changes nothing.
inline void keep_tensor(const TensorView& from, const TensorView& to) noexcept {
  if (from.data == to.data) return;
  const std::size_t bytes = static_cast<std::size_t>(count_of(to)) * item_bytes(to.spec->dtype);
  if (bytes != 0) std::memcpy(to.data, from.data, bytes);
}

inline SgdStep sgd_step(const ops::SgdUpdate& op, double learning_rate, double factor) noexcept {
  SgdStep step{};
  step.rate = static_cast<float>(learning_rate * op.rate_scale);
  step.momentum = static_cast<float>(op.momentum);
  step.weight_decay = static_cast<float>(op.weight_decay);
  step.factor = static_cast<float>(factor);
  step.nesterov = op.nesterov;
  return step;
}

struct AdamCoefficients {
  double factor, weight_decay, shrink, mean_weight, variance_weight, step_size, inverse_correction;
};

// `steps` is the number of updates before this one.
inline AdamCoefficients adam_coefficients(const ops::AdamUpdate& op, double learning_rate,
                                          std::int64_t steps, double factor) noexcept {
  const double rate = learning_rate * op.rate_scale;
  const double t = static_cast<double>(steps) + 1.0;
  AdamCoefficients result{};
  result.factor = factor;
  result.weight_decay = op.decoupled ? 0.0 : op.weight_decay;
  result.shrink = op.decoupled ? 1.0 - rate * op.weight_decay : 1.0;
  result.mean_weight = 1.0 - op.beta1;
  result.variance_weight = 1.0 - op.beta2;
  result.step_size = rate / (1.0 - std::pow(op.beta1, t));
  result.inverse_correction = 1.0 / std::sqrt(1.0 - std::pow(op.beta2, t));
  return result;
}

inline AdamStep adam_step(const ops::AdamUpdate& op, const AdamCoefficients& c) noexcept {
  AdamStep step{};
  step.factor = static_cast<float>(c.factor);
  step.weight_decay = static_cast<float>(c.weight_decay);
  step.shrink = static_cast<float>(c.shrink);
  step.mean_weight = static_cast<float>(c.mean_weight);
  step.beta2 = static_cast<float>(op.beta2);
  step.variance_weight = static_cast<float>(c.variance_weight);
  step.step_size = static_cast<float>(c.step_size);
  step.inverse_correction = static_cast<float>(c.inverse_correction);
  step.eps = static_cast<float>(op.eps);
  return step;
}

}  // namespace pycnn::cpu
