#pragma once
#include "backends/cpu/conv2d_weight_grad.h"

// Gradient of the weights of bfloat16 convolutions that read few channels, by units that multiply
// tiles: taps by output channels, summed over pixels.
//
// Each element of a row of taps gets a row of its own, of what it meets from output pixel to output
// pixel: the input's row shifted, and sorted by its position modulo the stride. Those of all rows
// of the window follow one another, so that any sixteen taps are a tile as they lie. The gradient
// is copied as pairs of pixels by 32 channels, as it is for conv2d_row_pair_grad.h.
//
// The images are cut into units of some rows, the units into parts with sums of their own, which
// are added in order; all of that depends on the shapes alone.
namespace pycnn::cpu {

extern const KernelFunction kTapRowGradPortable;
#if PYCNN_HAVE_AVX512
extern const KernelFunction kTapRowGradAmx;
#endif

// nullptr means yes.
const char* refuse_tap_row_grad(const WeightGradProblem& problem);
// Inputs of the kernel: image, grad_output. Outputs: grad_weight, [grad_bias].
Kernel make_tap_row_grad_kernel(const WeightGradProblem& problem, int threads, KernelFunction run);

}  // namespace pycnn::cpu
