#pragma once
#include "backends/cpu/conv2d_weight_grad.h"

// Gradient of the weights of convolutions in groups whose output channels fill whole vectors, from
// copies of input rows as conv2d_grouped.h makes them.
//
// The images are cut into parts with sums of their own, the channels into splits; which is a
// function of the shapes and the instruction set alone. Within a part rows follow one another,
// a few of them with one sum; the parts are added in order.
namespace pycnn::cpu {

struct GroupGradKernels;

struct GroupGradRun {
  KernelFunction run;
  const GroupGradKernels* kernels;
  Index lanes;
};
extern const GroupGradRun kGroupGradBaseline;
#if PYCNN_HAVE_AVX2
extern const GroupGradRun kGroupGradAvx2;
#endif
#if PYCNN_HAVE_AVX512
extern const GroupGradRun kGroupGradAvx512;
#endif

// nullptr means yes.
const char* refuse_grouped(const WeightGradProblem& problem, Index lanes);
// Reads and writes what make_weight_grad_kernel's does.
Kernel make_grouped_weight_grad_kernel(const WeightGradProblem& problem, int threads,
                                       const GroupGradRun& entry);

}  // namespace pycnn::cpu
