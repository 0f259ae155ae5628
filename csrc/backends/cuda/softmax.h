#pragma once
#include <cstdint>

#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Over the last axis of float32 matrices (rows, classes), and the losses, which take and give
// 16-bit matrices, too.
namespace pycnn::cuda {

void softmax(DeviceQueue& queue, const float* input, float* output, std::int64_t rows,
             std::int64_t classes, bool log);
void softmax_grad(DeviceQueue& queue, const float* output, const float* grad_output,
                  float* grad_input, std::int64_t rows, std::int64_t classes, bool log);

struct Labels {
  const std::int64_t* wide = nullptr;  // one of the three is given
  const std::int32_t* narrow = nullptr;
  const float* soft = nullptr;
};

// What cross_entropy and top_k_correct want of scratch.
std::int64_t row_total_scratch_bytes(std::int64_t rows);
void cross_entropy(DeviceQueue& queue, Image image, const void* logits, const Labels& labels,
                   float smoothing, float* loss, std::int64_t rows, std::int64_t classes,
                   void* scratch);
void cross_entropy_grad(DeviceQueue& queue, Image image, const void* logits, const Labels& labels,
                        float smoothing, const float* grad_loss, Image gradient, void* grad_logits,
                        std::int64_t rows, std::int64_t classes);

// `scratch`: total_scratch_bytes (total_scratch.h).
void mean_squared_error(DeviceQueue& queue, const float* input, const float* target, float* loss,
                        std::int64_t count, void* scratch);
void top_k_correct(DeviceQueue& queue, Image image, const void* scores, const Labels& labels,
                   std::int64_t k, float* count, std::int64_t rows, std::int64_t classes,
                   void* scratch);

}  // namespace pycnn::cuda
