#pragma once
#include "backends/cpu/winograd.h"

// Winograd's filtering (winograd.h) in tiles of 4x4 outputs of 3x3 windows, within groups of one,
// two or four vectors of channels that read as many channels as they write. A few tiles of one
// group are transformed, multiplied and transformed back while their points are in L1, as
// [point][tile][channel].
namespace pycnn::cpu {

// Tiles side by side, to their points. Pixels outside the image are zeros.
struct WinogradStrip {
  const float* image = nullptr;  // the group's first channel of the first pixel
  Index rows = 0, columns = 0;   // of the image
  Index pixel_pitch = 0;         // floats from pixel to pixel
  Index row = 0, column = 0;     // the first tile's first pixel; may be outside
  Index tiles = 0;               // at most kWinogradStrip
  Index channels = 0;            // of the group
  float* points = nullptr;       // of the first tile, in the first plane
  Index plane = 0;               // floats from one plane to the next
};
constexpr Index kWinogradStrip = 8;
constexpr Index kWinogradLeastGroup = 8;  // channels; fewer do not repay the transforms

// Each point of each tile becomes its product with the weights, in the same place.
struct WinogradGroupProducts {
  float* points = nullptr;
  Index plane = 0, count = 0;          // count: of the planes
  Index tiles = 0;                     // whose points follow one another
  Index channels = 0;                  // of the group
  const float* weights = nullptr;      // [point][channel read][channel written]
  LineRuns fetch_input, fetch_output;  // wanted soon: their lines are asked for between the points
};

// sums[point][o][i] (+)= sum over tiles of grads[point][tile][o] * inputs[point][tile][i]
struct WinogradGroupSums {
  const float* inputs = nullptr;
  const float* grads = nullptr;
  Index plane = 0, count = 0;
  Index tiles = 0, channels = 0;
  float* sums = nullptr;
  bool accumulate = false;  // else sums are overwritten
  LineRuns fetch_input, fetch_grad;
};

// Of one instruction set.
struct WinogradGroupSet {
  void (*input)(const WinogradStrip&);
  void (*gradient)(const WinogradStrip&);  // of the outputs
  void (*products)(const WinogradGroupProducts&);
  void (*sums)(const WinogradGroupSums&);
};

namespace baseline {
extern const WinogradGroupSet kWinogradGroups;
}
namespace avx2 {
extern const WinogradGroupSet kWinogradGroups;
}
namespace avx512 {
extern const WinogradGroupSet kWinogradGroups;
}

}  // namespace pycnn::cpu
