#pragma once
#include "backends/cpu/conv2d_window.h"
#include "backends/cpu/pair_products.h"

// Convolution of bfloat16 images by 3x3 windows at stride 1, and its gradient for the input, by
// F(2x2, 3x3) with products of pairs (winograd_pairs.h): 16 products where the sums by definition
// need 36. A block of tiles is transformed, multiplied block by block of output channels, and each
// block's sums are transformed back, all in the cache of one core.
//
// A 5x5 window is the sum of four: of 2 and 3 taps along each side. The points that belong to a
// third tap alone are zero where there is none, which leaves 49 products of 100.
//
// Numerics: transformed images and weights are rounded to bfloat16, sums are float32: the error is
// about 1.6 times that of the sums by definition (docs/design.md). Larger tiles would round too
// much. A NaN or an infinity reaches the whole tile.
namespace pycnn::cpu {

struct PairTileLoops {
  KernelFunction run, pack;
};
struct PairTileRun {
  PairTileLoops three;
  const PairTileLoops* five;
};
extern const PairTileRun kPairTilesPortable;
#if PYCNN_HAVE_AVX512
extern const PairTileRun kPairTilesAvx512;
#endif

// nullptr means yes.
const char* refuse_pair_tiles(const WindowProblem& window);
// Inputs of the kernel: image, packed weight, [bias], [residual], [mask].
Kernel make_pair_tile_kernel(const WindowProblem& window, int threads, const PairTileRun& entry);

// Parts of it.
struct TileTensors {
  const BFloat16* input;
  const BFloat16* weights;
  const float* bias;         // filled up with zeros to whole blocks
  const BFloat16* residual;  // lies as the output does
  const BFloat16* mask;      // likewise
  BFloat16* output;
  Index input_pixel, output_pixel;  // elements from pixel to pixel
};

// `bias` is room for whole blocks.
TileTensors tile_tensors_of(const KernelArgs& args, const ExtraInputs& extra, Index out_channels,
                            float* bias);
extern const PairTileLoops kFiveTilesPortable;
#if PYCNN_HAVE_AVX512
extern const PairTileLoops kFiveTilesAvx512;
#endif
Kernel make_five_tile_kernel(const WindowProblem& window, int threads, const PairTileLoops& entry);
// A step of a block of weights, whose points in float32 are [point][channel of the step][32], to
// planes of [half][pair][16][2]; even channels first, as place_in_step says.
void round_points(const PairUnit& unit, const float* points, Index plane, BFloat16* to);

}  // namespace pycnn::cpu
