#pragma once
#include <cstdint>

// The register-blocked inner loops that convolution and dense layers share, once per instruction
// set. Plain pointers and counts only: this header is read by .isa.cpp files.
//
// Three shapes of work exist. `window_tiles` keeps a block of output pixels times output channels
// in registers while it walks taps and input channels (forward, gradient for the input).
// `outer_tiles` and `panel_tiles` keep a block of a weight gradient in registers while they walk
// pixels. `row_dots` multiplies rows as they lie (dense layers of large weights).
//
// Numerics: one accumulator per element (row_dots: per lane, added up as a tree), one fixed order
// (taps as listed, then channels; or rows, then columns), fused multiply-add where the set has it;
// what accumulates adds the sum of each call to what was there. Neither the tile an element falls
// into nor its neighbours change its bits.
namespace pycnn::cpu {

using Index = std::int64_t;

// Activations applied while the sum is still in registers; the transcendental ones follow in
// `activate`.
enum class TileActivation : std::uint8_t { kIdentity, kRelu, kRelu6, kLeakyRelu };

// Runs of contiguous floats at a pitch from one another.
struct LineRuns {
  const float* from = nullptr;
  Index runs = 0, count = 0, pitch = 0;
};

// Output channels come in blocks of 2 * lanes; the last one holds what is left, in one vector when
// that is enough.
//
// Weights of a block: [tap][channel][block width], zero beyond the last output channel. All steps
// and pitches count floats.
struct WindowTiles {
  const float* input = nullptr;  // first tap's anchor of the first output pixel
  Index images = 1, rows = 0, columns = 0;
  Index input_image = 0, input_row = 0,
        input_column = 0;       // steps from one output pixel to the next
  const Index* taps = nullptr;  // offsets from the anchor
  Index tap_count = 0;
  Index run = 0;  // contiguous floats at each tap
  const float* weights = nullptr;
  Index block_begin = 0, block_end = 0, channels = 0;  // output channels in all
  Index wanted_end = 0;  // of the blocks that are wanted soon, from the first of these on
  float* output = nullptr;
  Index output_image = 0, output_row = 0, output_column = 0;
  const float* bias = nullptr;      // optional, per output channel
  const float* residual = nullptr;  // optional, laid out as the output; may be the output
  // Likewise: where it is not above zero, and no NaN, the result becomes 0.
  const float* mask = nullptr;
  const float* measured = nullptr;  // likewise: read once the results are there, by others
  TileActivation activation = TileActivation::kIdentity;
  float slope = 0;
  LineRuns fetch;  // wanted soon: their lines are asked for between the tiles
};

// Copies pixels to [block of channels][pixel][2 * lanes].
struct PixelBlocks {
  const float* from = nullptr;
  Index rows = 0, columns = 0, row = 0, column = 0;  // pixels and the steps between them
  Index channels = 0;
  float* to = nullptr;
};

// c[i][j] (+)= sum over pixels of a[pixel][i] * b[pixel][j].
struct OuterTiles {
  const float* a = nullptr;
  const float* b = nullptr;
  Index rows = 0, columns = 0;  // pixels
  Index a_row = 0, a_column = 0, b_row = 0, b_column = 0;
  Index m = 0, n = 0;
  float* c = nullptr;
  Index c_pitch = 0;
  bool accumulate = false;  // else c is overwritten
};

// The same, by way of copies in which neighbouring pixels lie next to one another, however many
// channels there are. They are made while the first tiles that need them are multiplied.
struct PanelTiles : OuterTiles {
  bool copy_a = false, copy_b = false;  // else the copies are there
  // Of a: [panel of channels][pixel][kGemmScalars], and kGemmLanes to spare.
  float* panels = nullptr;
  float* block = nullptr;  // of b: [pixel][2 * lanes], of the last block only
};

// sums[j][i] (+)= product of row j of b with row i of a, `count` contiguous floats each.
struct RowDots {
  const float* a = nullptr;
  const float* b = nullptr;
  Index a_rows = 0, b_rows = 0, a_pitch = 0, b_pitch = 0, count = 0;
  float* sums = nullptr;
  Index sums_pitch = 0;
  bool accumulate = false;
};

// sums[j] (+)= sum over pixels of b[pixel][j].
struct ColumnSums {
  const float* b = nullptr;
  Index rows = 0, columns = 0, b_row = 0, b_column = 0, n = 0;
  float* sums = nullptr;
  bool accumulate = false;
};

// output[pixel][tap offset + i] += columns[pixel][tap][i]; `output` moves by `output_column` a
// pixel.
struct ScatterColumns {
  const float* columns = nullptr;
  Index pixels = 0, taps = 0, run = 0;
  const Index* offsets = nullptr;  // of the taps
  float* output = nullptr;
  Index output_column = 0;
};

#define PYCNN_DECLARE_GEMM(ISA, LANES, SCALARS)               \
  namespace ISA {                                             \
  constexpr Index kGemmLanes = LANES, kGemmScalars = SCALARS; \
  void window_tiles(const WindowTiles& job);                  \
  void outer_tiles(const OuterTiles& job);                    \
  void panel_tiles(const PanelTiles& job);                    \
  void block_pixels(const PixelBlocks& job);                  \
  void row_dots(const RowDots& job);                          \
  void column_sums(const ColumnSums& job);                    \
  void scatter_columns(const ScatterColumns& job);            \
  void add_floats(float* to, const float* from, Index count); \
  }
PYCNN_DECLARE_GEMM(baseline, 4, 6)
PYCNN_DECLARE_GEMM(avx2, 8, 6)
PYCNN_DECLARE_GEMM(avx512, 16, 14)
#undef PYCNN_DECLARE_GEMM

}  // namespace pycnn::cpu
