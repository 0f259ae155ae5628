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
// The sums stay in registers from one product to the next: the intermediate ones are a tile, in the
// nearest cache. With two levels each of the products is computed that way itself, of two pairs and
// quarters of the channels: the rows of A11, say, are the first pixels of both pairs.
//
// Numerics: with one level an element has one accumulator, which takes the products in the order
// below, each over its channels in their order. With two, each of the products has one, and the
// results are added up in that order. An element's bits depend on the two pixels of its pair, or
// the four of two pairs, alone.
namespace pycnn::cpu {

// Products in their order, as the copies of pixels and the packed weights have them:
//   A11 B11, A12 B21, S2 T2, S3 T3, A22 (-T4), S1 T1, S4 B22
// With two levels, product by product of the outer one, those of the inner one.
constexpr int kStrassenProducts = 7;
constexpr int strassen_products(Index levels) {
  return levels == 2 ? kStrassenProducts * kStrassenProducts : kStrassenProducts;
}
// Parts of the channels of either side; pixels that are multiplied together.
constexpr Index strassen_parts(Index levels) { return levels == 2 ? 4 : 2; }

// Offsets of a pair's pixels in floats; the second of the last pair of an image with an odd number
// of pixels is kNoPixel and counts as zeros.
struct PixelPair {
  Index in_first, in_second, out_first, out_second;
};
constexpr Index kNoPixel = -1;

// Makes the left sides of the products: [product][pair][half], pairs at `pitch`; with two levels
// [product][two pairs][quarter].
struct StrassenSums {
  const float* input = nullptr;
  const PixelPair* pairs = nullptr;
  Index count = 0;  // pairs; with two levels even, and of two pixels all
  Index part = 0;   // input channels of a half or a quarter; with two levels whole lines
  float* sums = nullptr;
  Index pitch = 0, plane = 0;  // from one pair or two, from one product to the next
  Index levels = 1;
};

// Weights: [block of output channels in each part][product][input channel][kStrassenBlock].
struct StrassenTiles {
  const float* sums = nullptr;
  Index pitch = 0, plane = 0;
  const PixelPair* pairs = nullptr;
  Index count = 0, part = 0;
  const float* weights = nullptr;
  Index block_begin = 0, block_end = 0;
  Index out_part = 0;  // output channels of a half or a quarter, a multiple of kStrassenBlock
  Index levels = 1;
  float* output = nullptr;
  const float* bias = nullptr;      // optional, per output channel
  const float* residual = nullptr;  // optional, laid out as the output; may be the output
  const float* mask = nullptr;      // likewise, as in WindowTiles
  TileActivation activation = TileActivation::kIdentity;
  float slope = 0;
  float* spare = nullptr;   // as many floats as output channels, for pixels that there are not
  LineRuns fetch;           // as of WindowTiles
  LineRuns fetch_more;      // likewise
  LineRuns fetch_measured;  // likewise: what is read once these results are there
};

// Packs rows of a block: what the sums of pixels meet. The four parts of the weight lie at `pitch`.
// Of two levels the inner one takes what the outer one has made of four blocks.
struct StrassenWeights {
  const float* b11 = nullptr;
  const float* b12 = nullptr;
  const float* b21 = nullptr;
  const float* b22 = nullptr;
  Index pitch = 0;  // from one input channel to the next
  Index count = 0;  // input channels
  float* packed = nullptr;
  Index product = 0;      // floats from one product to the next
  bool streamed = false;  // past the caches; `packed` and `product` are whole lines then
};

namespace avx512 {
constexpr Index kStrassenPairs = 14;  // of a tile; with two levels, as many times two
constexpr Index kStrassenBlock = 32;  // output channels
void strassen_sums(const StrassenSums& job);
void strassen_tiles(const StrassenTiles& job);
void strassen_weights(const StrassenWeights& job);
// Where input channels follow one another in memory: rows of a block's output channels, `pitch`
// apart, to rows of `count` input channels.
void strassen_turn(const float* from, Index pitch, Index count, float* to);
}  // namespace avx512

}  // namespace pycnn::cpu
