#pragma once
#include "backends/cpu/conv2d_weight_grad.h"

// Gradient of the weights of convolutions at stride 1, the transpose of conv2d_winograd.h: the
// points of a block of tiles, of inputs and of gradients, are multiplied and summed point by point;
// the sums over all tiles become the gradient in the end.
//
// Numerics: one accumulator per point and weight, tiles in order; rounding as conv2d_winograd.h.
namespace pycnn::cpu {

struct WinogradGradKernels;

struct WinogradGradRun {
  KernelFunction run;
  const WinogradGradKernels* kernels;
};
extern const WinogradGradRun kWinogradGradBaseline;
#if PYCNN_HAVE_AVX2
extern const WinogradGradRun kWinogradGradAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const WinogradGradRun kWinogradGradAvx512;
#endif

// nullptr means yes.
const char* refuse_winograd(const WeightGradProblem& problem);
// Reads and writes what make_weight_grad_kernel's does.
Kernel make_winograd_weight_grad_kernel(const WeightGradProblem& problem,
                                        const WinogradGradRun& entry);

}  // namespace pycnn::cpu
