#pragma once
#include "backends/cpu/conv2d_window.h"

// Convolution by 3x3 windows at stride 1 within groups of whole vectors of channels, and its
// gradient for the input, by Winograd's minimal filtering (winograd_groups.h): a few tiles of a
// group pass through all steps while they are in L1.
//
// Numerics: those of conv2d_winograd.h.
namespace pycnn::cpu {

struct WinogradGroupKernels;

struct WinogradGroupRun {
  KernelFunction run, pack;
  const WinogradGroupKernels* kernels;
  Index lanes;
};
extern const WinogradGroupRun kWinogradGroupsBaseline;
#if PYCNN_HAVE_AVX2
extern const WinogradGroupRun kWinogradGroupsAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const WinogradGroupRun kWinogradGroupsAvx512;
#endif

// nullptr means yes.
const char* refuse_winograd_groups(const WindowProblem& window, Index lanes);
// Reads inputs as make_window_kernel's does.
Kernel make_winograd_group_kernel(const WindowProblem& window, int threads,
                                  const WinogradGroupRun& entry);

}  // namespace pycnn::cpu
