#pragma once
#include "backends/cpu/conv2d_weight_grad.h"

// Gradient of the weights of 3x3 convolutions of bfloat16 images at stride 1, the transpose of
// conv2d_winograd_bfloat16.h: inputs and gradients of a block of tiles are transformed, and their
// points multiplied as pairs of tiles (winograd_pairs.h) and summed point by point; the sums over
// all tiles become the gradient in the end.
//
// Numerics: points are rounded to bfloat16; one float32 sum per point and weight, tiles in order.
// The gradient of the bias is not rounded in between.
namespace pycnn::cpu {

extern const KernelFunction kPairTileGradPortable;
#if PYCNN_HAVE_AVX512
extern const KernelFunction kPairTileGradAvx512;
#endif

// nullptr means yes.
const char* refuse_pair_tiles(const WeightGradProblem& problem);
// Reads and writes what make_weight_grad_kernel's does, images in bfloat16.
Kernel make_pair_tile_weight_grad_kernel(const WeightGradProblem& problem, KernelFunction run);

}  // namespace pycnn::cpu
