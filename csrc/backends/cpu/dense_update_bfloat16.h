#pragma once
#include <span>

#include "backends/backend.h"
#include "backends/cpu/pair_products.h"
#include "core/function_ref.h"

// A dense layer's weight gradient from bfloat16 images and the update that takes it, a tile of the
// weight at a time: some rows of 32 output channels, whose gradient never leaves the cache.
//
// New weights are packed for dense layers from there, too, where that is wanted
// (Kernel::writes_packings).
//
// Numerics: a gradient is one float32 sum over all images in their order, by the unit's products.
namespace pycnn::cpu {

// Takes the gradients of weights [begin, begin + count), which follow one another in a row. Leaves
// the new weights there if they are to be packed.
using TakeGradients = FunctionRef<void(Index begin, Index count, float* gradients)>;

// What an update gives beside the new parameter.
struct UpdateResults {
  float* grad_bias = nullptr;
  std::span<const TensorView> packings = {};  // none, or both
};

// Inputs of the kernel: parameter, image, grad_output, more.
void each_pair_tile(const KernelArgs& args, const PairUnit& unit, const UpdateResults& results,
                    TakeGradients take) noexcept;

// Without the function to run.
Kernel make_pair_update_kernel(const Problem& problem);

}  // namespace pycnn::cpu
