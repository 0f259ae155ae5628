#pragma once
#include "backends/cpu/conv2d_weight_grad.h"

// Gradient of the weights of bfloat16 convolutions that read few channels, such as those of images:
// products of input elements with gradient pixels, two neighbours of a row at a time.
//
// A row of taps is a run of the input's row. Each element of a row, with zeros around what the
// image has, is copied once as a pair with the one that a stride further on meets the same tap: all
// taps of a row then read their pairs from the same copy, and none is filled up. The gradient is
// copied as pairs of pixels by 32 channels.
//
// The images are cut into units of some rows, the units into parts with sums of their own, which
// are added in order; all of that depends on the shapes alone.
namespace pycnn::cpu {

extern const KernelFunction kRowPairGradPortable;
#if PYCNN_HAVE_AVX512
extern const KernelFunction kRowPairGradAvx512;
#endif

// nullptr means yes.
const char* refuse_row_pair_grad(const WeightGradProblem& problem);
// Inputs of the kernel: image, grad_output. Outputs: grad_weight, [grad_bias].
Kernel make_row_pair_grad_kernel(const WeightGradProblem& problem, int threads, KernelFunction run);

}  // namespace pycnn::cpu
