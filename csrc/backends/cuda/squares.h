#pragma once
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// The norm of all gradients, and what they are clipped by.
namespace pycnn::cuda {

// The sum of squares of each of up to kMostSquares gradients, in float64: called until there are
// those of all, then finished. `pieces`: total_scratch_bytes (total_scratch.h) of each.
constexpr int kMostSquares = 100;  // what fits the parameters of a launch
struct Squares {
  const void* values;
  std::int64_t count;
  Image type;
};
void sums_of_squares(DeviceQueue& queue, const Squares* of, int count, double* totals,
                     double* pieces);
void clip_factor(DeviceQueue& queue, const double* totals, int count, double max_norm,
                 float* factor, float* norm);

}  // namespace pycnn::cuda
