#pragma once
#include "backends/cpu/conv2d_window.h"

// Convolution of bfloat16 images by 3x3 windows at stride 1, and its gradient for the input, by
// F(2x2, 3x3) with products of pairs (winograd_pairs.h): 16 products where the sums by definition
// need 36. A block of tiles is transformed, multiplied block by block of output channels, and each
// block's sums are transformed back, all in the cache of one core.
//
// Numerics: transformed images and weights are rounded to bfloat16, sums are float32: the error is
// about 1.6 times that of the sums by definition (docs/design.md). Larger tiles would round too
// much. A NaN or an infinity reaches the whole tile.
namespace pycnn::cpu {

struct PairTileRun {
  KernelFunction run, pack;
};
extern const PairTileRun kPairTilesPortable;
#if PYCNN_HAVE_AVX512
extern const PairTileRun kPairTilesAvx512;
#endif

// nullptr means yes.
const char* refuse_pair_tiles(const WindowProblem& window);
// Inputs of the kernel: image, packed weight, [bias], [residual].
Kernel make_pair_tile_kernel(const WindowProblem& window, int threads, const PairTileRun& entry);

}  // namespace pycnn::cpu
