#pragma once
#include "backends/cpu/conv2d_window.h"

// Convolutions in groups of up to 64 channels. A vector holds output channels of one group, or of
// several whole groups that are smaller; input rows are copied to blocks of sixteen channels, zeros
// around them, which stay in the near caches until all of their outputs are done. Rows of all
// groups are copied and used at a time where their weights are few, so that memory is read and
// written from end to end, else those of a few groups.
//
// Forward and gradient for the input; numerics as in gemm.h.
namespace pycnn::cpu {

struct GroupKernels;

struct GroupRunner {
  KernelFunction run;
  const GroupKernels* kernels;
  Index lanes;
};
extern const GroupRunner kGroupedBaseline;
#if PYCNN_HAVE_AVX2
extern const GroupRunner kGroupedAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const GroupRunner kGroupedAvx512;
// Of bfloat16 images, by VDPBF16PS: two neighbouring channels are multiplied at once.
extern const GroupRunner kGroupedPairsAvx512;
#endif
extern const GroupRunner kGroupedPairsPortable;

// nullptr means yes.
const char* refuse_grouped(const WindowProblem& window, const GroupRunner& entry);
const char* refuse_grouped_pairs(const WindowProblem& window);
// Reads inputs as make_window_kernel's does.
Kernel make_grouped_kernel(const WindowProblem& window, int threads, const GroupRunner& entry);

}  // namespace pycnn::cpu
