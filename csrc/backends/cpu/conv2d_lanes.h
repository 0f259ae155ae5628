#pragma once
#include "backends/cpu/conv2d_window.h"

// Convolutions whose groups have too few output channels to fill a vector: depthwise, small groups,
// and one input channel with a handful of filters. The lanes run over the output channels of all
// groups; the copy of the input rows gives every lane the channel that it reads, in one plane per
// input channel of a group. When the output channels do not divide into vectors, a whole row of
// output is taken as one run of floats, in which the channels repeat.
//
// Forward and gradient for the input; numerics as in gemm.h.
namespace pycnn::cpu {

struct LaneKernels;

struct LaneRun {
  KernelFunction run;
  const LaneKernels* kernels;
  Index lanes;
};
extern const LaneRun kLanesBaseline;
#if PYCNN_HAVE_AVX2
extern const LaneRun kLanesAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const LaneRun kLanesAvx512;
#endif

// nullptr means yes.
const char* refuse_lanes(const WindowProblem& window, Index lanes);
Kernel make_lane_kernel(const WindowProblem& window, int threads, const LaneRun& entry);

}  // namespace pycnn::cpu
