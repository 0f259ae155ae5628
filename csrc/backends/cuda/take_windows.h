#pragma once
#include "backends/cuda/divider.h"
#include "backends/cuda/image_factors.h"

namespace pycnn {
struct DeviceQueue;
}

// Windows of images (ops/move.h), normalised on the way to where a net reads them.
namespace pycnn::cuda {

struct TakeWindowsParams {
  const void* images;
  bool bytes;                  // images of uint8, else float32
  const std::int64_t* places;  // rows of 8, on the device
  void* output;
  std::int64_t images_count, height, width;  // of the images
  int channels;
  int window_height, window_width;
  Divider pixel_items, row_items;  // elements of a pixel, and of a window's row
  WideDivider window_items;
  std::int64_t count;  // elements of all windows
  float fill;
  float box_fill[kMaxImageChannels];
  int box_fills;           // 1: the first serves all channels
  const float* box_table;  // on the device, of more channels; null: `box_fill` is read
  bool normalizes;
  ImageFactors factors;
};

// Windows of the images' own type.
void take_windows(DeviceQueue& queue, const TakeWindowsParams& params);
// Of the output's type, normalised if wanted.
void take_windows(DeviceQueue& queue, Image output, const TakeWindowsParams& params);

}  // namespace pycnn::cuda
