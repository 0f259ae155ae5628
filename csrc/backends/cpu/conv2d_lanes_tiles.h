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
  Index weight_pitch = 0;  // from tap to tap
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
  const float* end = nullptr;  // of what may be read
  Index columns = 0;
  Index inputs = 0, outputs = 0;  // floats from pixel to pixel; channels of a plane
  Index group_inputs = 1, group_outputs = 1;
  float* to = nullptr;
  Index plane_pitch = 0;
};

// Weight gradient of `lanes` neighbouring output channels, at most one vector:
//
//   sums[(tap * group_inputs + k) * pitch + lane] (+)= sum over pixels of grad[pixel][lane] *
//       input[pixel + tap + lane / group_outputs * group_inputs + k]
//
// group_outputs divides the vector and is at least group_inputs.
struct LaneProducts {
  const float* input = nullptr;
  Index input_row = 0, input_column = 0;
  const float* grad = nullptr;
  Index grad_row = 0, grad_column = 0;
  Index rows = 0, columns = 0;
  const Index* taps = nullptr;
  Index tap_count = 0;
  Index group_inputs = 1, group_outputs = 1;
  Index lanes = 0;
  float* sums = nullptr;
  Index pitch = 0;
  bool accumulate = false;
};

#define PYCNN_DECLARE_LANES(ISA)               \
  namespace ISA {                              \
  void lane_tiles(const LaneTiles& job);       \
  void spread_row(const SpreadRow& job);       \
  void lane_products(const LaneProducts& job); \
  }
PYCNN_DECLARE_LANES(baseline)
PYCNN_DECLARE_LANES(avx2)
PYCNN_DECLARE_LANES(avx512)
#undef PYCNN_DECLARE_LANES

}  // namespace pycnn::cpu
