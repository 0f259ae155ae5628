#pragma once
#include "backends/backend.h"
#include "backends/cpu/activation.h"
#include "backends/cpu/conv2d_input.h"
#include "backends/cpu/conv2d_measure.h"

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
  // Whether the last input is a mask that lies as the output does: where it is not above zero, and
  // no NaN, the result becomes 0. Fused to a gradient alone, whose epilogue has no activation.
  bool mask = false;
  MeasureKind measure = MeasureKind::kNothing;
};

// Which inputs the optional ones are; -1 where there is none.
struct ExtraInputs {
  int bias = -1, residual = -1, mask = -1;

  ExtraInputs() = default;
  explicit ExtraInputs(const WindowProblem& window) {
    int next = 2;
    if (window.bias) bias = next++;
    if (window.epilogue.residual) residual = next++;
    if (window.mask) mask = next++;
  }
  // Kernel::in_place of the result: each element is read before it is written.
  std::uint32_t in_place() const {
    return (residual < 0 ? 0 : 1u << residual) | (mask < 0 ? 0 : 1u << mask);
  }
  // Whether nothing has to lie as the output does.
  bool free_output() const { return residual < 0 && mask < 0; }
};

// Whether some pixels of a gradient meet no tap: they are cleared, which no epilogue follows.
bool has_gaps(const WindowProblem& window);

// The inner loops of one instruction set.
struct WindowKernels {
  Index lanes;
  void (*tiles)(const WindowTiles&);
  const ActivationFunctions* activation;
  const BatchNormFunctions<float>* norm;
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

// The kernel reads inputs: image, packed weight, [bias], [residual], [mask]. The weight is (OC, KH,
// KW, IC / groups), or (OUT, IN) for dense layers.
Kernel make_window_kernel(const WindowProblem& window, int threads, const WindowRun& entry);

}  // namespace pycnn::cpu
