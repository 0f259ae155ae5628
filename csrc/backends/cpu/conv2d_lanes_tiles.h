#pragma once
#include "backends/cpu/gemm.h"

// Contract of conv2d_lanes.isa.cpp.
namespace pycnn::cpu {

// One row of output. Each pixel is `vectors` whole vectors of output channels in the input and the
// weights; only `valid` floats of it (`last_valid` of the last) are written.
//
//   output[pixel][lane] = sum over taps of input[pixel * input_column + tap + lane] *
//                         weights[tap][lane]
//
// Reads whole vectors of the input.
struct LaneTiles {
  const float* input = nullptr;
  Index columns = 0, input_column = 0;
  const Index* taps = nullptr;
  Index tap_count = 0;
  const float* weights = nullptr;
  Index vectors = 0;
  Index valid = 0, last_valid = 0;
  float* output = nullptr;
  Index output_column = 0;
  const float* bias = nullptr;      // optional, vectors whole vectors
  const float* residual = nullptr;  // optional, laid out as the output
  TileActivation activation = TileActivation::kIdentity;
  float slope = 0;
};

// Gives each output channel the input channel that it reads: plane k holds, for each pixel and
// output channel o, from[pixel][o / group_outputs * group_inputs + k]. Up to a vector of floats
// beyond a plane's last pixel is overwritten.
struct SpreadRow {
  const float* from = nullptr;
  Index columns = 0, inputs = 0, outputs = 0;  // channels
  Index group_inputs = 1, group_outputs = 1;
  float* to = nullptr;
  Index plane_pitch = 0;
};

#define PYCNN_DECLARE_LANES(ISA)         \
  namespace ISA {                        \
  void lane_tiles(const LaneTiles& job); \
  void spread_row(const SpreadRow& job); \
  }
PYCNN_DECLARE_LANES(baseline)
PYCNN_DECLARE_LANES(avx2)
PYCNN_DECLARE_LANES(avx512)
#undef PYCNN_DECLARE_LANES

}  // namespace pycnn::cpu
