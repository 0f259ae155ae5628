#pragma once
#include "backends/backend.h"
#include "backends/cpu/gemm.h"

// Gradient for an input of few channels. Channels of the input would fill only a part of the lanes,
// but taps and channels together fill them: the product of a gradient pixel with the whole filter
// bank is a row of KH * KW * IC numbers, which are then added to the pixels where the taps lie.
//
// Each input element receives its terms in the order of the gradient's pixels, whatever the batch
// or the thread count.
namespace pycnn::cpu {

struct ScatterKernels;

struct ScatterRun {
  KernelFunction run;
  const ScatterKernels* kernels;
  Index lanes;
};
extern const ScatterRun kScatterBaseline;
#if PYCNN_HAVE_AVX2
extern const ScatterRun kScatterAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const ScatterRun kScatterAvx512;
#endif

// Whether this takes clearly fewer operations than the sum over taps; nullptr means yes.
const char* refuse_scatter(const ops::Conv2dGradInput& op, const Problem& problem, Index lanes);
Kernel make_scatter_kernel(const ops::Conv2dGradInput& op, const Problem& problem,
                           const ScatterRun& entry);

}  // namespace pycnn::cpu
