#pragma once
#include "backends/cpu/conv2d_window.h"

// Convolution by 3x3 and 5x5 windows at stride 1, and its gradient for the input, by Winograd's
// minimal filtering (winograd.h): a block of tiles is transformed, each of its points is a matrix
// product over the read channels, and the sums are transformed back, all while they are in the
// cache of one core.
//
// Numerics: one accumulator per point and output channel, channels in order; the tile size follows
// from the size of one image alone. F(2x2) rounds about as much as direct sums, F(4x4) and 5x5
// windows about ten times as much. A NaN or an infinity reaches the whole tile, not just its
// receptive field.
namespace pycnn::cpu {

struct WinogradKernels;

struct WinogradRun {
  KernelFunction run, pack;
  const WinogradKernels* kernels;
};
extern const WinogradRun kWinogradBaseline;
#if PYCNN_HAVE_AVX2
extern const WinogradRun kWinogradAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const WinogradRun kWinogradAvx512;
#endif

// Why a problem that forbids it is refused.
inline constexpr const char* kWinogradIsOff = "winograd is off";
// nullptr means yes.
const char* refuse_winograd(const WindowProblem& window);
// Reads inputs as make_window_kernel's does.
Kernel make_winograd_kernel(const WindowProblem& window, int threads, const WinogradRun& entry);

}  // namespace pycnn::cpu
