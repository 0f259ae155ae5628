#pragma once
#include "backends/cpu/activation.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/variant.h"

// Dense layers and their gradients for the input that read large weights as they are. Packing them
// first, as dense.gemm does, would move more bytes than all else in a training step of few images,
// and keep two more copies of them. The size of the weight alone decides, since the bits of an
// image must not depend on its batch.
//
// Numerics: the forward sum of an output runs over vectors of inputs, which are added up after
// each stretch of inputs; the gradient's over stretches of outputs. The shape of the weight alone
// decides.
namespace pycnn::cpu {

// The inner loops of one instruction set.
struct DenseRowKernels {
  Index lanes;
  void (*dots)(const RowDots&);
  void (*tiles)(const WindowTiles&);
  void (*block)(const PixelBlocks&);
  const ActivationFunctions* activation;
};

struct DenseRowRun {
  KernelFunction forward, grad_input;
  const DenseRowKernels* kernels;
};
extern const DenseRowRun kDenseRowsBaseline;
#if PYCNN_HAVE_AVX2
extern const DenseRowRun kDenseRowsAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const DenseRowRun kDenseRowsAvx512;
#endif

// nullptr means yes.
const char* refuse_rows(const ops::Dense& op, const Problem& problem, const DenseRowRun& entry);
const char* refuse_rows(const ops::DenseGradInput& op, const Problem& problem,
                        const DenseRowRun& entry);
Kernel make_row_kernel(const ops::Dense& op, const Problem& problem, const DenseRowRun& entry);
Kernel make_row_kernel(const ops::DenseGradInput& op, const Problem& problem,
                       const DenseRowRun& entry);

}  // namespace pycnn::cpu
