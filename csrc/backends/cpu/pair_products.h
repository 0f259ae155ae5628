#pragma once
#include <cstdint>

#include "backends/cpu/activation.h"
#include "core/half_types.h"

// The inner loops of convolution and dense layers in bfloat16, once per unit that multiplies it.
// Such units take pairs of neighbours along the sum and add to float32: TDPBF16PS (AMX) 16 rows
// times 16 columns times 16 pairs, VDPBF16PS (AVX512_BF16) one row times 16 columns times one pair.
// Plain pointers and counts only: this header is read by .isa.cpp files. Steps, pitches and offsets
// count elements.
//
// Work comes in blocks of 32 by 32 results, two halves of 16 each way, because four accumulators of
// AMX then share two loads of each side. Where there are at most 16 channels, AMX takes two tiles
// and the one half of columns, and finishes what the channels have alone.
//
// Numerics: float32 sums, one fixed order (steps as listed, then pairs) for each result, whatever
// the block it falls into or its neighbours. Denormal numbers may count as zero.
namespace pycnn::cpu {

using Index = std::int64_t;

constexpr Index kPairRows = 16;              // of a half
constexpr Index kPairBlock = 32;             // rows or columns of a block
constexpr Index kPairStep = 32;              // elements of the sum that one step of AMX takes
constexpr Index kPairHalf = 16 * kPairStep;  // elements of a full half, rows or columns, of a step

// Rows of `count` floats, `pitch` floats from one another.
struct UpcomingRows {
  const float* from = nullptr;
  Index rows = 0, count = 0, pitch = 0;
};

// For each row r (an output pixel) and column c (an output channel):
//
//   output[rows[r] + c] = activation(bias[c] + residual[rows[r] + c] + sum over steps s, i < 2 *
//   pairs
//                         of input[halves[r / 16] + steps[s] + r % 16 * input_row + at(i)] *
//                         weight(s, i, c))
//
// rounded to bfloat16; at(i) is i, but the last pair of an odd step begins one element earlier, and
// nothing beyond the step is read. The weights are [block of 32 columns][step][half][pair][16][2],
// zero beyond the last channel.
struct PairTiles {
  const BFloat16* input = nullptr;
  Index input_row = 0;
  const Index* halves = nullptr;  // two per tile
  const Index* rows = nullptr;    // 32 per tile; negative: nobody wants this row
  Index tiles = 0;
  const Index* steps = nullptr;
  Index step_count = 0;
  Index step_pitch = 0;  // from one block's steps to the next one's; 0 when all have the same
  Index pairs = 0;       // of a step; AMX takes at most 16
  bool odd = false;      // AMX takes even steps only
  const BFloat16* weights = nullptr;  // of the first block there is
  Index block_begin = 0, block_end = 0, channels = 0;
  bool blocks_first = false;    // all blocks of a tile before the next tile
  const float* bias = nullptr;  // 32 per block
  BFloat16* output = nullptr;
  const BFloat16* residual = nullptr;  // optional; may be the output
  // Likewise, and laid out as it is: where it is not above zero, and no NaN, the result becomes 0.
  const BFloat16* mask = nullptr;
  bool relu = false;
  ActivationFunctions::Forward activation = nullptr;  // of any other kind, or null
  float slope = 0;
  // Steps of which others come before or after, one call for each such part: the sums pass through
  // `values`, [block][tile][32][32], from one part to the next. Null: all steps are here.
  float* values = nullptr;
  bool first_part = true, last_part = true;
  // Floats that will be read soon, for a part to fetch meanwhile.
  UpcomingRows upcoming;
};

// Channels of pixels that will be read soon; null pixels have none.
struct UpcomingPixels {
  const BFloat16* const* pixels = nullptr;
  Index count = 0, first_channel = 0, channels = 0;
};

// sums[row block][column block][tap][32][32] (+)= sum over steps and pairs of
// a[row][step][pair] * b[column][tap + step][pair]. With other pitches the 32 x 32 are a rectangle
// of a larger matrix.
struct PairSums {
  const BFloat16* a = nullptr;  // [half][step][pair][16 rows][2], for AMX [half][step][16 rows][32]
  Index a_half = 0;             // from one half to the next
  const BFloat16* b = nullptr;  // [half][step][pair][16 columns][2]
  Index b_half = 0;
  Index row_blocks = 0, column_blocks = 0;
  const Index* taps = nullptr;  // added to b
  Index tap_count = 0;
  Index steps = 0;
  Index pairs = kPairStep / 2;  // of a step; fewer of a single one alone
  float* sums = nullptr;
  Index sums_row = 0;                          // from one row block to the next
  Index sums_block = kPairBlock * kPairBlock;  // from one block of a row block to the next
  Index sums_pitch = kPairBlock;               // from one row of a block to the next
  bool accumulate = false;
  UpcomingPixels upcoming[2];  // that may be fetched meanwhile
};

// Pixels to be brought into the form of an operand, two by two; null ones count as zeros.
struct PixelPairs {
  const BFloat16* const* pixels = nullptr;
  Index pairs = 0, first_channel = 0, channels = 0;
  BFloat16* to = nullptr;
  Index group_pitch =
      0;  // from one 16 channels to the next; the last ones are filled up with zeros
};

// A rectangle of weights as one half of a step: to[pair][column][2], zero beyond the rectangle.
struct PairWeights {
  const float* from = nullptr;
  Index columns = 0, column_pitch = 0;    // at most 16
  Index elements = 0, element_pitch = 0;  // at most 2 * pairs
  Index pairs = 0;
  BFloat16* to = nullptr;
  // A rectangle of the same extent that will be packed soon, to be fetched meanwhile; may be null.
  const float* upcoming = nullptr;
};

// Rows of pixels, each with a zero behind its channels:
//
//   to[r * to_row + p * (channels + 1) + c] = from[r * from_row + p * channels + c]
struct PixelSpread {
  const BFloat16* from = nullptr;
  Index from_row = 0, rows = 0, pixels = 0, channels = 0;
  BFloat16* to = nullptr;
  Index to_row = 0;
};

struct PairUnit {
  void (*tiles)(const PairTiles&);
  void (*sums)(const PairSums&);
  // Operands of `sums`, [16 channels][pair][channel][2]; but AMX has its rows as tiles, [16
  // channels][step][channel][32].
  void (*rows)(const PixelPairs&);
  void (*columns)(const PixelPairs&);
  void (*pack)(const PairWeights&);
  void (*spread)(const PixelSpread&);
  const ActivationFunctions* activation;
  // Whether floats that will be read soon are fetched by `pack`; else by `tiles`.
  bool pack_fetches;
};

namespace portable {
extern const PairUnit kPairUnit;
}
namespace avx512_bf16 {
extern const PairUnit kPairUnit;
void transpose(const PixelPairs& job);  // to AMX's rows
}  // namespace avx512_bf16
namespace amx {
extern const PairUnit kPairUnit;
}

}  // namespace pycnn::cpu
