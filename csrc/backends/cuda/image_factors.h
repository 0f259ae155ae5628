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

constexpr int kMaxImageChannels = 16;

struct ImageFactors {
  int channels;  // 1: the first factors serve all
  float scale[kMaxImageChannels];
  float offset[kMaxImageChannels];

  // `channel` in [0, channels).
  PYCNN_BOTH float normalized(float value, int channel) const {
    return value * scale[channel] + offset[channel];
  }
};

// Why there are none for an op and images: null, if there are. elementwise.cpp
const char* lacks_factors(const ops::NormalizeImage& op, const TensorSpec& images);
ImageFactors factors_of(const ops::NormalizeImage& op, const TensorSpec& images);

}  // namespace pycnn::cuda
