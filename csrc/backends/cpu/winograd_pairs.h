#pragma once
#include "backends/cpu/gemm.h"
#include "backends/cpu/pair_products.h"

// F(2x2, 3x3) of winograd.h in bfloat16, for units that multiply pairs (pair_products.h): images
// and weights are transformed in float32 and rounded, their products summed and transformed back in
// float32. Plain pointers and counts only: this header is read by .isa.cpp files. Pitches count
// elements.
//
// Each product (point) of a tile has a plane of its own. Channels come in steps of 32, the even
// ones of a step before its odd ones: that is how they leave a register of 32 that was widened.
namespace pycnn::cpu {

constexpr Index kPairPoints = 16;  // of a tile of 2x2 outputs
constexpr Index kPairTileSide = 4;
constexpr Index kPairTilesAtOnce = 14;  // that a unit's registers hold

// Where channel c of a step goes, and what is read into place p.
constexpr Index place_in_step(Index channel) { return channel % 2 * (kPairStep / 2) + channel / 2; }

// A tile of an image, to [point][channel]. Pixels outside the image, and channels up to a whole
// step, are zeros.
struct PairTileInput {
  const BFloat16* image = nullptr;
  Index rows = 0, columns = 0, channels = 0;  // of the image
  Index pixel_pitch = 0;
  Index row = 0, column = 0;  // the tile's first pixel; may be outside
  BFloat16* points = nullptr;
  Index plane = 0;  // from one point to the next
};

// sums[point][tile][32] = sum over channels of points[point][tile][channel] * weights, for one
// block of 32 output channels. An even number of tiles.
struct PairTileProducts {
  const BFloat16* points = nullptr;
  Index plane = 0, tile_pitch = 0;
  Index tiles = 0, steps = 0;         // of channels
  const BFloat16* weights = nullptr;  // [step][half][16 pairs][16][2] for a point
  Index weight_plane = 0;
  float* sums = nullptr;
  Index sum_plane = 0;
};

// The same for the four 3x3 windows that make a 5x5 one, [row][column]: the second one of each side
// reads the points of the next tile. What the first ones would do to the points of their third tap,
// which is zero, is left out. Of rows x columns tiles; a tile behind an odd row may be computed.
struct ShiftedTileProducts {
  const BFloat16* points = nullptr;
  Index plane = 0, tile_pitch = 0, row_pitch = 0;
  Index rows = 0, columns = 0, steps = 0;
  const BFloat16* weights = nullptr;  // as above
  Index weight_plane = 0, window_weights = 0;
  float* sums = nullptr;
  Index sum_plane = 0, sum_row = 0;
};

// Whether a window's points of this index along one side are all zero.
static constexpr bool has_no_point(Index window, Index index) {
  return window == 0 && index == kPairTileSide - 1;
}

// A tile of sums to up to 2x2 outputs of up to 32 channels.
struct PairTileOutput {
  const float* sums = nullptr;  // [32] for a point
  Index plane = 0;
  Index rows = 0, columns = 0, channels = 0;  // to be written
  BFloat16* output = nullptr;
  Index row_pitch = 0, pixel_pitch = 0;
  const float* bias = nullptr;         // 32
  const BFloat16* residual = nullptr;  // optional, laid out as the output; may be the output
  const BFloat16* mask = nullptr;      // likewise, as in PairTiles
  bool relu = false;
  ActivationFunctions::Forward activation = nullptr;  // of any other kind, or null
  float slope = 0;
};

constexpr Index kMostTilePairs = 8;

// The first pixel of a tile; may be outside its image. Without an image the tile is zeros.
struct PairTilePlace {
  const BFloat16* image = nullptr;
  Index row = 0, column = 0;
};

// Tiles two by two as operands of PairSums: to[point][16 channels][pair][channel][2]. Pixels
// outside the image, and channels up to a whole step, are zeros. At most kMostTilePairs.
struct TilePairs {
  const PairTilePlace* tiles = nullptr;
  Index pairs = 0;
  Index rows = 0, columns = 0, channels = 0;  // of the images
  Index pixel_pitch = 0;
  BFloat16* points = nullptr;
  Index plane = 0, group_pitch = 0;  // from one point, and from one 16 channels, to the next
  // Of gradients, optional: the sum of their pixels is added to each channel, in float32, channels
  // as place_in_step puts them.
  float* sums = nullptr;
};

struct PairTileUnit {
  void (*input)(const PairTileInput&);
  void (*products)(const PairTileProducts&);
  void (*shifted_products)(const ShiftedTileProducts&);
  void (*output)(const PairTileOutput&);
  void (*input_pairs)(const TilePairs&);
  void (*gradient_pairs)(const TilePairs&);  // of outputs: tiles of 2x2
  const ActivationFunctions* activation;
};

namespace portable {
extern const PairTileUnit kPairTiles;
}
namespace avx512_bf16 {
extern const PairTileUnit kPairTiles;
}

}  // namespace pycnn::cpu
