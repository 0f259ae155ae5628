#pragma once
#include "backends/backend.h"
#include "backends/cpu/pair_products.h"
#include "core/function_ref.h"

// A dense layer's weight gradient from bfloat16 images and the update that takes it, a tile of the
// weight at a time: some rows of 32 output channels, whose gradient never leaves the cache.
//
// Numerics: a gradient is one float32 sum over all images in their order, by the unit's products.
namespace pycnn::cpu {

// Takes the gradients of weights [begin, begin + count), which follow one another in a row.
using TakeGradients = FunctionRef<void(Index begin, Index count, float* gradients)>;

// Inputs of the kernel: parameter, image, grad_output, more. Gives the gradient of the bias, too,
// unless it is null.
void each_pair_tile(const KernelArgs& args, const PairUnit& unit, float* grad_bias,
                    TakeGradients take) noexcept;

// Without the function to run.
Kernel make_pair_update_kernel(const Problem& problem);

}  // namespace pycnn::cpu
