#pragma once
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Moving elements about, and sums and maxima over axes.
namespace pycnn::cuda {

constexpr int kMaxBoxAxes = 8;

// For each place of the box: output[sum of place * output_step] = input[sum of place * input_step].
// A step of 0 repeats.
struct BoxParams {
  const void* input;
  void* output;
  int axes;
  std::int64_t shape[kMaxBoxAxes];
  std::int64_t input_step[kMaxBoxAxes];
  std::int64_t output_step[kMaxBoxAxes];
  std::int64_t count;
};
void copy_box(DeviceQueue& queue, int item_bytes, const BoxParams& params);
// The same by tiles, if each side has neighbours enough along an axis of its own; else false.
// transpose.cu
bool transpose_box(DeviceQueue& queue, int item_bytes, const BoxParams& params);

// output[0 .. count) = value, the low bytes of which are an element of 1, 2, 4 or 8 bytes.
void fill(DeviceQueue& queue, void* output, int item_bytes, std::uint64_t value,
          std::int64_t count);

// The sum over the axes `reduced`, through `divisor`, or the maximum, where NaN wins, for each
// place of the axes `kept`.
struct ReduceParams {
  const float* input;
  float* output;
  int kept, reduced;
  std::int64_t kept_shape[kMaxBoxAxes], kept_step[kMaxBoxAxes];
  std::int64_t reduced_shape[kMaxBoxAxes], reduced_step[kMaxBoxAxes];
  std::int64_t outputs, terms;
  double divisor;
  bool maximum;
};
std::int64_t reduce_scratch_bytes(const ReduceParams& params);  // by its numbers alone
// reduce.cu
void reduce(DeviceQueue& queue, const ReduceParams& params, void* scratch);

// Where the largest element of the middle axis of (outer, size, inner) is: the first of equal ones
// or, with `last`, the last; NaN counts as largest.
struct ArgMaxParams {
  const float* input;
  std::int64_t* output;
  std::int64_t outputs, size, inner;
  bool last;
};
void arg_max(DeviceQueue& queue, const ArgMaxParams& params);

}  // namespace pycnn::cuda
