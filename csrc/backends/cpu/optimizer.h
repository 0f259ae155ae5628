#pragma once
#include <cstdint>

// Contract of optimizer.isa.cpp: unaligned arrays of n floats. Each new_x may be x.
namespace pycnn::cpu {

struct SgdStep {
  const float* parameter;
  const float* gradient;
  const float* velocity;  // null without momentum
  float* new_parameter;
  float* new_velocity;
  std::int64_t n;
  float rate, momentum, weight_decay, factor;
  bool nesterov;
};

struct AdamStep {
  const float* parameter;
  const float* gradient;
  const float* mean;
  const float* variance;
  float* new_parameter;
  float* new_mean;
  float* new_variance;
  std::int64_t n;
  float factor;
  float weight_decay;  // of the gradient; 0 when decoupled
  float shrink;        // of the parameter; 1 unless decoupled
  float mean_weight;   // 1 - beta1
  float beta2;
  float variance_weight;     // 1 - beta2
  float step_size;           // rate / (1 - beta1^t)
  float inverse_correction;  // 1 / sqrt(1 - beta2^t)
  float eps;
};

struct OptimizerFunctions {
  void (*sgd)(const SgdStep& step);
  void (*adam)(const AdamStep& step);
  // new_average[i] = average[i] + weight * (value[i] - average[i])
  void (*ema)(const float* average, const float* value, float weight, float* new_average,
              std::int64_t n);
  // In float64; float32 squares neither overflow nor vanish there.
  double (*sum_of_squares)(const float* x, std::int64_t n);
};

namespace baseline {
extern const OptimizerFunctions kOptimizer;
}
namespace avx2 {
extern const OptimizerFunctions kOptimizer;
}
namespace avx512 {
extern const OptimizerFunctions kOptimizer;
}

}  // namespace pycnn::cpu
