#pragma once
#include "backends/cpu/conv2d_window.h"

// Convolutions with 1x1 windows, and their gradients for the input, by Strassen's algorithm in
// Winograd's form (strassen.h): a pair of neighbouring pixels of one image, halves of the input's
// and halves of the output's channels take seven products in place of eight. Weights are packed as
// the seven matrices that the sums of pixels meet.
namespace pycnn::cpu {

#if PYCNN_HAVE_AVX512

// Why a kernel does not take the problem; nullptr means yes. Depends on one image alone, so that a
// batch has the bits of its images.
const char* refuse_strassen(const WindowProblem& window);
// Reads inputs as make_window_kernel's does.
Kernel make_strassen_kernel(const WindowProblem& window, int threads);

#endif

}  // namespace pycnn::cpu
