#include "backends/cpu/optimizer.h"

#include "backends/cpu/reduce.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

// A factor or weight decay of 0 still meets infinities and NaN: a broken gradient or parameter
// shows.
template <bool kMomentum, bool kNesterov>
void sgd_loop(const SgdStep& step) {
  const Vec factor = broadcast(step.factor), decay = broadcast(step.weight_decay);
  const Vec momentum = broadcast(step.momentum), minus_rate = broadcast(-step.rate);
  for_each_vector(step.n, [&](std::int64_t i, int lanes) {
    const Vec p = load_lanes(step.parameter + i, lanes);
    Vec g = fma(decay, p, factor * load_lanes(step.gradient + i, lanes));
    if (kMomentum) {
      const Vec v = fma(momentum, load_lanes(step.velocity + i, lanes), g);
      store_lanes(step.new_velocity + i, v, lanes);
      g = kNesterov ? fma(momentum, v, g) : v;
    }
    store_lanes(step.new_parameter + i, fma(minus_rate, g, p), lanes);
  });
}

void sgd(const SgdStep& step) {
  if (step.velocity == nullptr)
    sgd_loop<false, false>(step);
  else if (step.nesterov)
    sgd_loop<true, true>(step);
  else
    sgd_loop<true, false>(step);
}

void adam(const AdamStep& step) {
  const Vec factor = broadcast(step.factor), decay = broadcast(step.weight_decay);
  const Vec shrink = broadcast(step.shrink), minus_step = broadcast(-step.step_size);
  const Vec mean_weight = broadcast(step.mean_weight), beta2 = broadcast(step.beta2);
  const Vec variance_weight = broadcast(step.variance_weight);
  const Vec inverse_correction = broadcast(step.inverse_correction), eps = broadcast(step.eps);
  for_each_vector(step.n, [&](std::int64_t i, int lanes) {
    const Vec p = load_lanes(step.parameter + i, lanes);
    const Vec old_mean = load_lanes(step.mean + i, lanes);
    const Vec old_variance = load_lanes(step.variance + i, lanes);
    const Vec g = fma(decay, p, factor * load_lanes(step.gradient + i, lanes));
    const Vec mean = fma(mean_weight, g - old_mean, old_mean);
    const Vec variance = fma(beta2, old_variance, variance_weight * g * g);
    const Vec denominator = fma(sqrt(variance), inverse_correction, eps);
    store_lanes(step.new_mean + i, mean, lanes);
    store_lanes(step.new_variance + i, variance, lanes);
    store_lanes(step.new_parameter + i, fma(minus_step, mean / denominator, shrink * p), lanes);
  });
}

void ema(const float* average, const float* value, float weight, float* new_average,
         std::int64_t n) {
  const Vec w = broadcast(weight);
  for_each_vector(n, [&](std::int64_t i, int lanes) {
    const Vec a = load_lanes(average + i, lanes);
    store_lanes(new_average + i, fma(w, load_lanes(value + i, lanes) - a, a), lanes);
  });
}

constexpr int kHalf = kLanes / 2;
using HalfVec = float __attribute__((vector_size(kHalf * 4)));
using DoubleVec = double __attribute__((vector_size(kHalf * 8)));

double sum_of_squares(const float* x, std::int64_t n) {
  DoubleVec sums[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kHalf <= n; i += 4 * kHalf) {
    for (int k = 0; k < 4; ++k) {
      HalfVec v;
      __builtin_memcpy(&v, x + i + k * kHalf, sizeof v);
      const DoubleVec d = __builtin_convertvector(v, DoubleVec);
      sums[k] += d * d;
    }
  }
  const DoubleVec all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double sum = 0.0;
  for (int k = 0; k < kHalf; ++k) sum += all[k];
  for (; i < n; ++i) sum += double{x[i]} * double{x[i]};
  return sum;
}

}  // namespace

extern const OptimizerFunctions kOptimizer = {sgd, adam, ema, sum_of_squares};

}  // namespace pycnn::cpu::PYCNN_ISA
