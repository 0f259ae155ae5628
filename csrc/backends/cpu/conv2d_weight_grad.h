#pragma once
#include "backends/backend.h"
#include "backends/cpu/conv2d_input.h"

// Gradient of convolution and dense weights: sums over pixels and images of products of an input
// element with a gradient element.
//
// The lanes hold whichever side fills them better: neighbouring inputs, which writes the gradient
// in its final layout, or output channels, which needs reordering at the end. With enough
// channels on both sides, both are copied to blocks of channels on the way. The pixels are cut
// into units, the units into at most sixteen parts, and each part has a sum of its own; the parts
// are added as a binary tree. All of that depends on the shapes and the instruction set alone.
namespace pycnn::cpu {

struct WeightGradProblem {
  Shape input, grad_output;  // NHWC
  Index groups = 1;
  Pair kernel_size = {1, 1};
  Pair stride = {1, 1}, dilation = {1, 1};
  Pair padding = {0, 0};  // top, left
  bool bias = false;
  // As many partial sums as threads, so that the result depends on their number. Only a pinned
  // variant asks for it: benchmarks/determinism_cost.py measures what the fixed parts cost.
  bool per_thread = false;
};

struct WeightGradKernels;

struct WeightGradRun {
  KernelFunction run;
  KernelFunction run_widening;
  const WeightGradKernels* kernels;
};
extern const WeightGradRun kWeightGradBaseline;
#if PYCNN_HAVE_AVX2
extern const WeightGradRun kWeightGradAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const WeightGradRun kWeightGradAvx512;
#endif

// The kernel reads inputs: image, grad_output; writes outputs: grad_weight, [grad_bias].
Kernel make_weight_grad_kernel(const WeightGradProblem& problem, int threads,
                               const WeightGradRun& entry);

}  // namespace pycnn::cpu
