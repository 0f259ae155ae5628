#pragma once
#include "backends/backend.h"

// The plain loops that define what convolution and dense kernels compute, in float32 and float64.
// Single-threaded, sums in the type of the tensors, in the order of the formula.
namespace pycnn::cpu {

Kernel make_conv2d_reference(const ops::Conv2d& op, const Problem& problem);
Kernel make_conv2d_grad_input_reference(const ops::Conv2dGradInput& op, const Problem& problem);
Kernel make_conv2d_grad_weight_reference(const ops::Conv2dGradWeight& op, const Problem& problem);
Kernel make_dense_reference(const ops::Dense& op, const Problem& problem);
Kernel make_dense_grad_input_reference(const ops::DenseGradInput& op, const Problem& problem);
Kernel make_dense_grad_weight_reference(const ops::DenseGradWeight& op, const Problem& problem);

}  // namespace pycnn::cpu
