#pragma once
#include <cstdint>

#include "ops/checks.h"

// Where windows lie on an image: the geometry of convolution and pooling, one axis at a time.
namespace pycnn::ops {

// (H, W) of images (N, H, W, C).
inline Pair image_size(const TensorSpec& image) { return {dim(image, 1), dim(image, 2)}; }

// One axis of an image under a sliding window.
struct WindowAxis {
  const char* name;  // "height", "width"
  std::int64_t size;
  std::int64_t before, after;  // padding
  std::int64_t kernel;
  std::int64_t dilation;
  std::int64_t stride;

  // Cells from the first to the last that a window touches.
  std::int64_t extent() const { return checked_add(checked_multiply(kernel - 1, dilation), 1); }
};

enum class Rounding { kFloor, kCeil };

// Number of windows: (size + before + after - extent) / stride + 1. With kCeil the division rounds
// up, but a window that would start in the padding after the image is left out. Throws ShapeError
// naming all the numbers when no window fits.
std::int64_t count_windows(const WindowAxis& axis, Rounding rounding = Rounding::kFloor);

// Vertical (0) and horizontal (1) axis of an image of (H, W) = size.
WindowAxis window_axis(int which, const Pair& size, const Padding& padding, const Pair& kernel,
                       const Pair& dilation, const Pair& stride);

// (OH, OW) for an image of (H, W) = size.
Pair count_windows(const Pair& size, const Padding& padding, const Pair& kernel,
                   const Pair& dilation, const Pair& stride, Rounding rounding = Rounding::kFloor);

}  // namespace pycnn::ops
