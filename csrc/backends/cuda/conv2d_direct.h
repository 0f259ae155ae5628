#pragma once
#include "backends/cuda/conv2d.h"

// Convolutions of few channels without products of tiles (conv2d_direct.cu), and the gradients of
// their weights (conv2d_direct_weight.cu).
namespace pycnn::cuda {

constexpr int kMostDirectIn = 4, kMostDirectOut = 16, kMostDirectWindow = 7 * 7 * kMostDirectIn;

// By the shape alone: a tile has 64 columns, of which such a convolution would use a quarter.
bool conv2d_is_direct(const ConvShape& shape);

// Of the images' type, as they are packed for a product.
struct DirectWeights {
  const void* data;
  int channel_pitch, row_pitch, tap_pitch;
};
// As conv2d, of a shape that is direct, where nothing is measured.
void conv2d_direct(DeviceQueue& queue, Image image, const ConvShape& shape, const void* input,
                   const DirectWeights& weights, const ConvEpilogue& epilogue, void* output);

// Of a shape that is direct, too: what a pixel costs, in multiply-adds of threads of which some may
// have nothing to do.
std::int64_t conv2d_direct_weight_work(const ConvShape& shape);
// The pixels are summed in chunks that depend on the shape alone.
std::int64_t conv2d_direct_weight_chunks(const ConvShape& shape);
// `sums` (chunk, weights) and `bias_sums` (chunk, output channel), which may be null.
void conv2d_direct_weight(DeviceQueue& queue, Image image, const ConvShape& shape,
                          const void* input, const void* grad_output, float* sums,
                          float* bias_sums);

}  // namespace pycnn::cuda
