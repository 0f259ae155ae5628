#pragma once
#include "backends/backend.h"
#include "backends/cpu/activation.h"
#include "backends/cpu/conv2d_input.h"

// The implicit GEMM behind Conv2d, Conv2dGradInput, Dense and DenseGradInput. All four are sums
// over taps of one image; they differ in where the taps lie, in the order of the packed weights and
// in which output pixels one list of taps serves.
//
// A gradient for the input with stride s falls apart into s x s passes, one per residue of the
// pixel's position: each has its own subset of taps and none of the zeros that a dilated gradient
// would hold. A forward convolution is one pass.
namespace pycnn::cpu {

// The problem, independent of direction.
struct WindowProblem {
  Shape input, output;  // NHWC
  Index groups = 1;
  Pair kernel_size = {1, 1};
  Pair stride = {1, 1}, dilation = {1, 1};
  Pair padding = {0, 0};  // top, left
  bool transposed =
      false;  // `input` is the gradient of a convolution's output, `output` of its input
  Epilogue epilogue;
  bool bias = false;
};

// The inner loops of one instruction set.
struct WindowKernels {
  Index lanes;
  void (*tiles)(const WindowTiles&);
  const ActivationFunctions* activation;
  const char* format;
  const char* transposed_format;
};

struct WindowRun {
  KernelFunction run;
  const WindowKernels* kernels;
};
extern const WindowRun kWindowBaseline;
#if PYCNN_HAVE_AVX2
extern const WindowRun kWindowAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const WindowRun kWindowAvx512;
#endif

// The kernel reads inputs: image, packed weight, [bias], [residual]. The weight is (OC, KH, KW,
// IC / groups), or (OUT, IN) for dense layers.
Kernel make_window_kernel(const WindowProblem& window, int threads, const WindowRun& entry);

}  // namespace pycnn::cpu
