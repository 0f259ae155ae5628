#pragma once
#include "backends/cpu/gemm.h"

// Inner loops of matrix products by Strassen's algorithm in Winograd's form: seven products of half
// the size along each side in place of eight (S. Winograd, 1971; the names below are those of
// Boyer, Dumas, Pernet and Zhou, "Memory efficient scheduling of Strassen-Winograd's matrix
// multiplication algorithm", 2009). For AVX-512 alone: with half the registers next to nothing is
// gained. Plain pointers and counts only.
//
// Rows are the two pixels of a pair; columns are halves of the output channels; what is summed over
// are halves of the input channels:
//   S1 = A21 + A22, S2 = S1 - A11, S3 = A11 - A21, S4 = A12 - S2
//   T1 = B12 - B11, T2 = B22 - T1, T3 = B22 - B12, T4 = T2 - B21
//   C11 = A11 B11 + A12 B21
//   U2 = A11 B11 + S2 T2, U3 = U2 + S3 T3, P5 = S1 T1
//   C21 = U3 - A22 T4, C22 = U3 + P5, C12 = U2 + P5 + S4 B22
// One level alone, whose sums stay in registers from one product to the next: the intermediate ones
// are a tile, in the nearest cache.
//
// Numerics: an element has one accumulator, which takes the products in the order below, each over
// its channels in their order. An element's bits depend on the two pixels of its pair alone.
namespace pycnn::cpu {

// Products in their order, as the copies of pixels and the packed weights have them:
//   A11 B11, A12 B21, S2 T2, S3 T3, A22 (-T4), S1 T1, S4 B22
constexpr int kStrassenProducts = 7;

// Offsets of a pair's pixels in floats; the second of the last pair of an image with an odd number
// of pixels is kNoPixel and counts as zeros.
struct PixelPair {
  Index in_first, in_second, out_first, out_second;
};
constexpr Index kNoPixel = -1;

// Makes the left sides of the products: [product][pair][half], pairs at `pitch`.
struct StrassenSums {
  const float* input = nullptr;
  const PixelPair* pairs = nullptr;
  Index count = 0;  // pairs
  Index half = 0;   // input channels
  float* sums = nullptr;
  Index pitch = 0, plane = 0;  // from one pair, from one product to the next
};

// Weights: [block of output channels in each half][product][input channel][kStrassenBlock].
struct StrassenTiles {
  const float* sums = nullptr;
  Index pitch = 0, plane = 0;
  const PixelPair* pairs = nullptr;
  Index count = 0, half = 0;
  const float* weights = nullptr;
  Index block_begin = 0, block_end = 0;
  Index out_half = 0;  // output channels, a multiple of kStrassenBlock
  float* output = nullptr;
  const float* bias = nullptr;      // optional, per output channel
  const float* residual = nullptr;  // optional, laid out as the output; may be the output
  const float* mask = nullptr;      // likewise, as in WindowTiles
  TileActivation activation = TileActivation::kIdentity;
  float slope = 0;
  float* spare = nullptr;   // 2 * out_half floats, for pixels that there are not
  LineRuns fetch;           // as of WindowTiles
  LineRuns fetch_measured;  // likewise: what is read once these results are there
};

// Packs rows of a block: what the sums of pixels meet. The four parts of the weight lie at `pitch`.
struct StrassenWeights {
  const float* b11 = nullptr;
  const float* b12 = nullptr;
  const float* b21 = nullptr;
  const float* b22 = nullptr;
  Index pitch = 0;  // from one input channel to the next
  Index count = 0;  // input channels
  float* packed = nullptr;
  Index product = 0;  // floats from one product to the next
};

namespace avx512 {
constexpr Index kStrassenPairs = 14;  // of a tile
constexpr Index kStrassenBlock = 32;  // output channels
void strassen_sums(const StrassenSums& job);
void strassen_tiles(const StrassenTiles& job);
void strassen_weights(const StrassenWeights& job);
}  // namespace avx512

}  // namespace pycnn::cpu
