#pragma once
#include <algorithm>

#include "backends/cpu/conv2d_winograd_tiles.h"

// What the weight gradients by Winograd's filtering, in float32 and bfloat16, have in common: the
// tiles are transformed and summed in steps, so that the points of one step stay near.
namespace pycnn::cpu {

constexpr Index kTileStepBytes = 8 * 1024 * 1024;  // of the points of a step
constexpr Index kLeastStepTiles = 64;              // fewer do not repay a pass over the sums
constexpr Index kBlocksOfSplit = 8;                // blocks of output channels of an item of work

struct TileStep {
  Index first, tiles;
  bool accumulate;
};

inline TileStep step_at(const WinogradTiles& tiles, Index step_tiles, Index s) {
  const Index first = s * step_tiles;
  return {first, std::min(step_tiles, tiles.count() - first), s > 0};
}

// Images of T and what becomes of them.
template <class T>
struct TileGradOperands {
  const T* input;
  const T* grad_output;
  Index input_pixel, grad_pixel;  // elements from pixel to pixel
  T* in_points;
  T* grad_points;
  float* sums;
  float* grad_weight;
  float* grad_bias;  // null without
};

// All but the points and sums, which are scratch.
template <class T>
TileGradOperands<T> operands_of(const KernelArgs& args, bool bias) {
  TileGradOperands<T> operands = {};
  operands.input = args.inputs[0].as<const T>();
  operands.grad_output = args.inputs[1].as<const T>();
  operands.input_pixel = args.inputs[0].pitch();
  operands.grad_pixel = args.inputs[1].pitch();
  operands.grad_weight = args.outputs[0].as<float>();
  operands.grad_bias = bias ? args.outputs[1].as<float>() : nullptr;
  return operands;
}

}  // namespace pycnn::cpu
