#pragma once
#include "backends/cuda/numbers.h"

namespace pycnn {
struct TensorSpec;
namespace ops {
struct NormalizeImage;
}
}  // namespace pycnn

// What normalising images multiplies by and adds, for kernels that do it on the way.
namespace pycnn::cuda {

constexpr int kMaxImageChannels = 16;  // as arguments of a kernel; more are read from its plan

struct ImageFactors {
  int channels;  // 1: the first factors serve all
  float scale[kMaxImageChannels];
  float offset[kMaxImageChannels];

  // `channel` in [0, channels).
  PYCNN_BOTH float normalized(float value, int channel) const {
    return value * scale[channel] + offset[channel];
  }
};

// There are none for images with factors of their own for too many channels. elementwise.cpp
bool lacks_factors(const ops::NormalizeImage& op, const TensorSpec& images);
ImageFactors factors_of(const ops::NormalizeImage& op, const TensorSpec& images);

}  // namespace pycnn::cuda
