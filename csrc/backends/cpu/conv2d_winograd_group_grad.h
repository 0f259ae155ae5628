#pragma once
#include "backends/cpu/conv2d_weight_grad.h"

// Gradient of the weights of 3x3 convolutions at stride 1 within groups of whole vectors of
// channels, by the transpose of Winograd's filtering (winograd_groups.h): transformed inputs times
// transformed gradients, summed over the tiles, become the gradient in the end.
//
// The tiles are cut into parts with sums of their own, which is a function of the shapes and the
// instruction set alone. Numerics: within a part one sum a point, batch by batch of tiles in their
// order; the parts are added in order.
namespace pycnn::cpu {

struct WinogradGroupGradKernels;

struct WinogradGroupGradRun {
  KernelFunction run;
  const WinogradGroupGradKernels* kernels;
  Index lanes;
};
extern const WinogradGroupGradRun kWinogradGroupGradBaseline;
#if PYCNN_HAVE_AVX2
extern const WinogradGroupGradRun kWinogradGroupGradAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const WinogradGroupGradRun kWinogradGroupGradAvx512;
#endif

// nullptr means yes.
const char* refuse_winograd_groups(const WeightGradProblem& problem, Index lanes);
// Reads and writes what make_weight_grad_kernel's does.
Kernel make_winograd_group_grad_kernel(const WeightGradProblem& problem, int threads,
                                       const WinogradGroupGradRun& entry);

}  // namespace pycnn::cpu
