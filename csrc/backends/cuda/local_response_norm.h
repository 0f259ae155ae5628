#pragma once
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Across channels, over [c - before, c + after]; the formula stands at ops::LocalResponseNorm.
namespace pycnn::cuda {

struct ResponseNorm {
  int before, after;
  float alpha_over_size, beta, k;
  std::int64_t pixels, channels;
  // Elements from pixel to pixel.
  std::int64_t input_pitch, output_pitch;            // of the op's input and output
  std::int64_t grad_output_pitch, grad_input_pitch;  // and of their gradients
};
void response_norm(DeviceQueue& queue, Image image, const ResponseNorm& norm, const void* input,
                   void* output);
void response_norm_grad(DeviceQueue& queue, Image image, const ResponseNorm& norm,
                        const void* input, const void* grad_output, void* grad_input);

}  // namespace pycnn::cuda
