#pragma once
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Images of another size: each result is a weighted sum of a few pixels, which tables on the device
// name. The gradient is the same with the tables turned round.
namespace pycnn::cuda {

struct ResizeTap {
  std::int64_t source;
  double weight;
};
// Of one axis: result i takes taps[first[i]] up to taps[first[i + 1]].
struct ResizeTaps {
  const std::int64_t* first;
  const ResizeTap* taps;
};

struct ResizeParams {
  const void* input;  // (images, height, width, channels)
  void* output;       // (images, out_height, out_width, channels)
  ResizeTaps rows, columns;
  std::int64_t images, height, width, out_height, out_width, channels;
};
void resize(DeviceQueue& queue, Image image, const ResizeParams& params);

}  // namespace pycnn::cuda
