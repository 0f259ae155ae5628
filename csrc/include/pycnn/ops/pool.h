#pragma once
#include "pycnn/ops/op.h"

/// \file
/// Pooling: csrc/ops/pool.cpp
/// Output size: floor((H + top + bottom - (KH-1)*DH - 1) / SH) + 1; with ceil_mode the division
/// rounds up, but no window starts in the bottom or right padding (as PyTorch). Padding per side is
/// at most half of the window.
namespace pycnn::ops {

/// Largest value of each window. Padding never wins; NaN wins; ties go to the first cell in
/// row-major order.
/// inputs: input (N, H, W, C) float.
/// outputs: output (N, OH, OW, C)
struct MaxPool2d {
  Pair kernel_size = {2, 2};  ///< (KH, KW), cells of a window
  Pair stride = {2, 2};       ///< pixels from one window to the next, (vertical, horizontal)
  Padding padding;            ///< pixels around the image, which never win
  Pair dilation = {1, 1};  ///< pixels from one cell of a window to the next, (vertical, horizontal)
  bool ceil_mode = false;  ///< adds a last window where the strides leave pixels over
  PYCNN_OP("max_pool2d", kernel_size, stride, padding, dilation, ceil_mode)
};

/// inputs: input (N, H, W, C); grad_output (N, OH, OW, C).
/// outputs: grad_input (N, H, W, C)
struct MaxPool2dGrad {
  MaxPool2d pool;  ///< what it is the gradient of
  PYCNN_OP("max_pool2d_grad", pool)
};

/// Mean of each window, over the cells inside image + padding (count_include_pad) or inside the
/// image only.
/// inputs: input (N, H, W, C) float.
/// outputs: output (N, OH, OW, C)
struct AvgPool2d {
  Pair kernel_size = {2, 2};      ///< (KH, KW), cells of a window
  Pair stride = {2, 2};           ///< pixels from one window to the next, (vertical, horizontal)
  Padding padding;                ///< zeros around the image
  bool ceil_mode = false;         ///< adds a last window where the strides leave pixels over
  bool count_include_pad = true;  ///< whether the divisor counts cells in the padding
  PYCNN_OP("avg_pool2d", kernel_size, stride, padding, ceil_mode, count_include_pad)
};

/// inputs: grad_output (N, OH, OW, C).
/// outputs: grad_input (N, H, W, C) with H, W from input_size
struct AvgPool2dGrad {
  AvgPool2d pool;            ///< what it is the gradient of
  Pair input_size = {0, 0};  ///< (H, W) of the image pooled
  PYCNN_OP("avg_pool2d_grad", pool, input_size)
};

/// Mean of OH x OW windows that cover the image evenly, whatever its size: window i spans [floor(i
/// * H / OH), ceil((i + 1) * H / OH)), columns likewise (as PyTorch).
/// inputs: input (N, H, W, C) float.
/// outputs: output (N, OH, OW, C) with OH, OW from output_size. Costs nothing where H, W are OH,
/// OW.
struct AdaptiveAvgPool2d {
  Pair output_size = {1, 1};  ///< (OH, OW)
  PYCNN_OP("adaptive_avg_pool2d", output_size)
};

/// inputs: grad_output (N, OH, OW, C).
/// outputs: grad_input (N, H, W, C) with H, W from input_size
struct AdaptiveAvgPool2dGrad {
  Pair input_size = {0, 0};  ///< (H, W) of the image pooled
  PYCNN_OP("adaptive_avg_pool2d_grad", input_size)
};

/// Other numbers of rows and columns. Places outside the image count as the pixel at its border.
/// inputs: input (N, H, W, C) float.
/// outputs: output (N, OH, OW, C) with OH, OW from output_size.
struct Resize2d {
  Pair output_size = {1, 1};                 ///< (OH, OW)
  ResizeMode mode = ResizeMode::kBilinear;   ///< how pixels are taken
  ResizeGrid grid = ResizeGrid::kHalfPixel;  ///< where they are taken
  std::vector<double> scales;  ///< of rows and columns; empty: output_size over the input's size
  PYCNN_OP("resize2d", output_size, mode, grid, scales)
};

/// inputs: grad_output (N, OH, OW, C).
/// outputs: grad_input (N, H, W, C) with H, W from input_size
struct Resize2dGrad {
  Resize2d resize;           ///< what it is the gradient of
  Pair input_size = {0, 0};  ///< (H, W) of the image resized
  PYCNN_OP("resize2d_grad", resize, input_size)
};

/// inputs: input (N, H, W, C) float.
/// outputs: mean over H and W, (N, C)
struct GlobalAvgPool2d {
  PYCNN_OP("global_avg_pool2d")
};

/// inputs: grad_output (N, C).
/// outputs: grad_input (N, H, W, C) with H, W from input_size
struct GlobalAvgPool2dGrad {
  Pair input_size = {0, 0};  ///< (H, W) of the image pooled
  PYCNN_OP("global_avg_pool2d_grad", input_size)
};

/// inputs: input (N, H, W, C) float.
/// outputs: maximum over H and W, (N, C); NaN wins; ties go to the first cell
struct GlobalMaxPool2d {
  PYCNN_OP("global_max_pool2d")
};

/// inputs: input (N, H, W, C); grad_output (N, C).
/// outputs: grad_input (N, H, W, C)
struct GlobalMaxPool2dGrad {
  PYCNN_OP("global_max_pool2d_grad")
};

}  // namespace pycnn::ops
