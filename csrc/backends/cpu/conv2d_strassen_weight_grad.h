#pragma once
#include "backends/cpu/conv2d_weight_grad.h"

// Gradient of the weights of convolutions by Strassen's algorithm in Winograd's form
// (strassen_grad.h): pairs of neighbouring pixels, halves of the output's and halves of the input's
// channels take seven products in place of eight. The taps of a window are one 1x1 convolution
// each, of the pixels that they see, which are copied.
//
// The pixels are cut into units and these into parts, the output channels into splits, as the
// shapes alone have it. A worker sums the seven products of a part, a tap and a split and makes a
// part of the gradient of them; the parts are added as a binary tree.
namespace pycnn::cpu {

#if PYCNN_HAVE_AVX512

// nullptr means yes.
const char* refuse_strassen(const WeightGradProblem& problem);
// Reads and writes what make_weight_grad_kernel's does.
Kernel make_strassen_weight_grad_kernel(const WeightGradProblem& problem, int threads);

#endif

}  // namespace pycnn::cpu
