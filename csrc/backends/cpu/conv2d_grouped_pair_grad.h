#pragma once
#include "backends/cpu/conv2d_weight_grad.h"

// Gradient of the weights of bfloat16 convolutions in narrow groups: products of gradient pixels
// with input pixels, two neighbours of a row at a time.
//
// Slices of 32 channels, whole groups, are copied some rows at a time: the input with zeros around
// what the image has, the gradient as pairs. The images are cut into parts with sums of their own,
// which are added in order, the slices into splits; both depend on the shapes alone.
namespace pycnn::cpu {

extern const KernelFunction kGroupPairGradPortable;
#if PYCNN_HAVE_AVX512
extern const KernelFunction kGroupPairGradAvx512;
#endif

// nullptr means yes.
const char* refuse_group_pair_grad(const WeightGradProblem& problem);
// Inputs of the kernel: image, grad_output. Outputs: grad_weight, [grad_bias].
Kernel make_group_pair_grad_kernel(const WeightGradProblem& problem, int threads,
                                   KernelFunction run);

}  // namespace pycnn::cpu
