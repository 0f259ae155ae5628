#pragma once
#include "backends/cpu/gemm.h"

// The transforms of Winograd's minimal filtering, F(2x2, 3x3), F(4x4, 3x3) and F(2x2, 5x5): a tile
// of m x m outputs of an r x r window from (m + r - 1) x (m + r - 1) inputs by as many products
// (Lavin, Gray 2015, "Fast algorithms for convolutional neural networks"; the points are 0, 1, -1,
// infinity, and 2, -2 for the larger two). Plain pointers and counts only: this header is read by
// .isa.cpp files.
//
// Each product (point) of a tile has a plane of its own: what the transforms write and read is
// [point][tile][channel], with room for whole vectors of channels.
namespace pycnn::cpu {

// One tile of an image, to the planes. Pixels outside the image are zeros. Channels come in blocks
// of two vectors.
struct WinogradInput {
  const float* image = nullptr;
  Index rows = 0, columns = 0, channels = 0;  // of the image
  Index pixel_pitch = 0;                      // floats from pixel to pixel
  Index row = 0, column = 0;                  // the tile's first pixel; may be outside
  float* points = nullptr;                    // the tile in the first plane
  Index plane = 0;                            // floats from one plane to the next
  Index block_pitch = 0;                      // floats from one block of channels to the next
};

// One tile of sums, from the planes.
struct WinogradOutput {
  const float* points = nullptr;
  Index plane = 0;
  Index rows = 0, columns = 0, channels = 0;  // to be written
  float* output = nullptr;
  Index row_pitch = 0, pixel_pitch = 0;
  const float* bias = nullptr;      // optional, per channel
  const float* residual = nullptr;  // optional, laid out as the output; may be the output
  const float* mask = nullptr;      // likewise, as in WindowTiles
  TileActivation activation = TileActivation::kIdentity;
  float slope = 0;
};

// A block of output channels of a weight, to [point][read channel][width].
struct WinogradWeights {
  const float* weight = nullptr;
  Index tap_pitch = 0, read_pitch = 0, write_pitch = 0;  // one of the last two is 1
  bool flipped = false;  // taps in reverse order: the gradient for the input
  Index read_channels = 0;
  Index width = 0, valid = 0;  // floats per read channel; the others are zeros
  float* points = nullptr;
  Index plane = 0;
};

// Sums over tiles of products of inputs' and gradients' points, for one output channel, to the
// gradient of its weights.
struct WinogradSums {
  const float* points = nullptr;
  Index plane = 0, block_pitch = 0;  // blocks of read channels, two vectors wide
  Index read_channels = 0;
  float* weight = nullptr;  // [tap][read channel]
  Index tap_pitch = 0;
};

// The transforms for one size of tile and window.
struct WinogradTransforms {
  void (*input)(const WinogradInput&);
  void (*gradient)(const WinogradInput&);  // of the outputs: tiles of m x m
  void (*sums)(const WinogradSums&);
  void (*output)(const WinogradOutput&);
  void (*weights)(const WinogradWeights&);
};

// Of one instruction set, named by tile and window.
struct WinogradSet {
  const WinogradTransforms* two_by_three;
  const WinogradTransforms* four_by_three;
  const WinogradTransforms* two_by_five;
};

namespace baseline {
extern const WinogradSet kWinograd;
}
namespace avx2 {
extern const WinogradSet kWinograd;
}
namespace avx512 {
extern const WinogradSet kWinograd;
}

}  // namespace pycnn::cpu
