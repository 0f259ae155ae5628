#pragma once
#include "backends/cuda/curve.h"
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Pooling of images (N, H, W, C). Gradients are gathered: each pixel asks the windows that hold it.
namespace pycnn::cuda {

// Along one axis of the image.
struct PoolAxis {
  std::int64_t input, output, kernel, stride, dilation, before, after;
};
struct PoolShape {
  std::int64_t images, channels;
  PoolAxis rows, columns;
  // Elements from pixel to pixel of the forward op's input and output (or its gradient), and of the
  // input's gradient.
  std::int64_t input_pitch, output_pitch, grad_pitch;
  // Whether the output (or its gradient) is (N, C, H, W); only of max_pool, avg_pool and gradients.
  bool planar_output = false;
};

// The gradient goes back through activated = activate(...) before it is stored.
struct PoolPassed {
  const void* activated = nullptr;  // null: it does not
  std::int64_t pitch = 0;           // from pixel to pixel
  Curve curve = {};
};

void max_pool(DeviceQueue& queue, Image image, const PoolShape& shape, const void* input,
              void* output);
// Windows that overlap share scratch, 8-byte aligned.
std::int64_t max_pool_grad_scratch_bytes(const PoolShape& shape);
void max_pool_grad(DeviceQueue& queue, Image image, const PoolShape& shape, const void* input,
                   const void* grad_output, const PoolPassed& passed, void* grad_input,
                   void* scratch);
void avg_pool(DeviceQueue& queue, Image image, const PoolShape& shape, bool count_padding,
              const void* input, void* output);
void avg_pool_grad(DeviceQueue& queue, Image image, const PoolShape& shape, bool count_padding,
                   const void* grad_output, const PoolPassed& passed, void* grad_input);

// Windows that cover the image evenly; of the axes only input and output count.
void adaptive_avg_pool(DeviceQueue& queue, Image image, const PoolShape& shape, const void* input,
                       void* output);
void adaptive_avg_pool_grad(DeviceQueue& queue, Image image, const PoolShape& shape,
                            const void* grad_output, void* grad_input);

// Over `pixels` pixels of each image.
std::int64_t global_avg_pool_scratch_bytes(std::int64_t images, std::int64_t pixels,
                                           std::int64_t channels);
void global_avg_pool(DeviceQueue& queue, Image image, std::int64_t images, std::int64_t pixels,
                     std::int64_t channels, std::int64_t pitch, const void* input, void* output,
                     void* scratch);
void global_avg_pool_grad(DeviceQueue& queue, Image image, std::int64_t images, std::int64_t pixels,
                          std::int64_t channels, const void* grad_output, void* grad_input);
void global_max_pool(DeviceQueue& queue, Image image, std::int64_t images, std::int64_t pixels,
                     std::int64_t channels, const void* input, void* output);
void global_max_pool_grad(DeviceQueue& queue, Image image, std::int64_t images, std::int64_t pixels,
                          std::int64_t channels, const void* input, const void* grad_output,
                          void* grad_input);

}  // namespace pycnn::cuda
