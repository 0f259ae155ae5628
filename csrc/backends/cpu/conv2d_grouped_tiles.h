#pragma once
#include "backends/cpu/activation.h"
#include "backends/cpu/gemm.h"
#include "core/half_types.h"

// Contract of conv2d_grouped.isa.cpp and of conv2d_grouped_pairs_avx512_bf16.isa.cpp.
//
// Copies of input rows lie in blocks of kInputBlock channels: the pixels of a block follow one
// another. Groups that are smaller than a vector pick each lane's channel from a vector of the
// block while they multiply, where the instruction set has units to spare for that (kPickLanes).
// Elsewhere they read planes instead: plane k holds, for each pixel, one vector whose lane l is the
// channel k of the group of output channel l.
namespace pycnn::cpu {

constexpr Index kInputBlock = 16;

struct FloatRange {
  const float* from = nullptr;
  Index count = 0;
};

// One vector of output channels of one row of output.
//
//   output[pixel][lane] = sum over runs, then channels k, then taps t of
//       input[run offset + (pixel * stride + t) * pitch + at(k)] * weights[run][k][t][lane]
//
// Blocks: pitch is kInputBlock and at(k) = k, or, of smaller groups, lane - lane % group + k.
// Planes: pitch is the vector's length and at(k) = k * plane_pitch + lane.
//
// Of bfloat16 images a "channel" of the input, of weights and of `group` is a pair of neighbours in
// the 32 bits of a float, and a product is that of both; at(k) is then lane / (2 * group) * group +
// k. Sums are float32, and rounded once.
template <class T>
struct GroupTilesOf {
  const float* input = nullptr;
  Index columns = 0, stride = 1;  // stride: 1, or 2 in blocks
  const Index* runs = nullptr;    // offset, taps (1 to 3) and channels of each
  Index run_count = 0;
  Index plane_pitch = 0;  // 0: blocks
  Index group = 0;        // blocks: channels of groups that are smaller than a vector, else 0
  const float* weights = nullptr;
  Index lanes = 0;  // output channels of the vector
  T* output = nullptr;
  Index output_column = 0;
  const float* bias = nullptr;  // optional, `lanes` of them
  const T* residual = nullptr;  // optional, laid out as the output; may be the output
  TileActivation activation = TileActivation::kIdentity;
  float slope = 0;
  ActivationFunctions::Forward function = nullptr;  // of bfloat16: any other activation, or null
  // Wanted soon, of the input and of the output: asked for between the tiles.
  FloatRange fetch_input, fetch_output;
};
using GroupTiles = GroupTilesOf<float>;
using GroupPairTiles = GroupTilesOf<BFloat16>;

// Copies pixels of one row to blocks, or to the planes of one vector.
struct GroupRow {
  const float* from = nullptr;
  const float* end = nullptr;       // of what may be read
  Index columns = 0, channels = 0;  // channels: floats from pixel to pixel
  Index group = 0;   // channels of a group, a power of two below the lanes; 0: blocks
  Index blocks = 1;  // neighbours in the input
  float* to = nullptr;
  Index plane_pitch = 0;  // from plane to plane, or block to block
};

// Weight gradient of one vector of output channels and one run of taps, from blocks.
//
//   sums[k][t][lane] (+)= sum over pixels of grad[pixel][lane] *
//       input[(pixel * stride + t) * kInputBlock + channel(lane, k)]
//
// channel(lane, k) is k, or lane - lane % group + k where groups are smaller than a vector.
struct GroupProducts {
  const float* input = nullptr;
  Index input_row = 0, stride = 1;  // floats from output row to row; pixels
  const float* grad = nullptr;
  Index grad_row = 0, grad_column = 0;
  Index rows = 0, columns = 0;
  Index taps = 1, channels = 0;  // taps: 1 or 3
  Index group = 0;               // channels of smaller groups, 2 or more
  float* sums = nullptr;
  bool accumulate = false;  // else sums are overwritten
  LineRuns fetch;           // wanted soon: asked for between the pixels
};

#define PYCNN_DECLARE_GROUPED(ISA, PICK_LANES)   \
  namespace ISA {                                \
  constexpr bool kPickLanes = PICK_LANES;        \
  void group_tiles(const GroupTiles& job);       \
  void copy_group_row(const GroupRow& job);      \
  void group_products(const GroupProducts& job); \
  }
PYCNN_DECLARE_GROUPED(baseline, false)
PYCNN_DECLARE_GROUPED(avx2, true)
PYCNN_DECLARE_GROUPED(avx512, true)
#undef PYCNN_DECLARE_GROUPED

// Weight gradient of a slice of channels, whole groups, and the three taps of a row, from copies:
//
//   sums[half][k][t][lane] (+)= sum over rows and pixels of grad[pixel][channel] *
//       input[pixel * stride + t][channel - channel % group + k], channel = half * 16 + lane
//
// of pixels that follow one another, an even one and the next together.
constexpr Index kGroupSlice = 32;
struct GroupPairSums {
  const BFloat16* input = nullptr;  // [pixel][32]
  Index input_row = 0, stride = 1;  // elements from output row to row; pixels, 1 or 2
  const BFloat16* grad = nullptr;   // [pair of pixels][32][2], zeros after an odd last pixel
  Index grad_row = 0;
  Index rows = 0, columns = 0;  // of the gradient
  Index group = 0;              // channels: a multiple of 4 that divides 32
  float* sums = nullptr;
  bool accumulate = false;  // else sums are overwritten
};

// A row of a slice of the gradient to such pairs.
struct GroupPairRow {
  const BFloat16* from = nullptr;
  Index columns = 0, channels = 0;  // channels: elements from pixel to pixel
  BFloat16* to = nullptr;
};

constexpr Index kPairLanes = 16;
namespace portable {
void group_pair_tiles(const GroupPairTiles& job);
void group_pair_sums(const GroupPairSums& job);
void pair_group_row(const GroupPairRow& job);
}  // namespace portable
namespace avx512_bf16 {
void group_pair_tiles(const GroupPairTiles& job);
void group_pair_sums(const GroupPairSums& job);
void pair_group_row(const GroupPairRow& job);
}  // namespace avx512_bf16

}  // namespace pycnn::cpu
