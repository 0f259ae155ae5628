#pragma once
#include "backends/cpu/conv2d_weight_grad.h"
#include "backends/cpu/pair_products.h"

// Gradient of convolution and dense weights from bfloat16 images: products of gradient pixels with
// input pixels, two pixels at a time.
//
// A unit is some rows or some images. Its gradient is transposed to rows of pixels, one per output
// channel, with zeros where the rows of the input are padded; its input becomes pairs of
// neighbouring pixels. A tap is then a shift along the pixels of the input. Shifts by an odd number
// of pixels need pairs that begin at odd pixels, so there are two copies. With a stride, pixels are
// sorted by their position modulo the stride. With few channels, the taps of a row are channels of
// a wider pixel. Where there is a single tap, the next unit's pixels are fetched while a unit is
// multiplied.
//
// The units are cut into parts with a sum each, which depend on the shapes alone. Output channels
// and, where both sides are split, channels are cut into splits: these move no sum's border, and
// may depend on the threads. A NaN or an infinity of the input may reach the gradients of taps that
// do not see it, since rows are counted through their padding.
namespace pycnn::cpu {

struct PairGradRun {
  KernelFunction run;
  Index unit_pixels;  // of a unit whose pixels meet a single tap; whole steps
  bool splits_both;
};
extern const PairGradRun kPairGradPortable;
#if PYCNN_HAVE_AVX512
extern const PairGradRun kPairGradAvx512;
extern const PairGradRun kPairGradAmx;
#endif

// Inputs of the kernel: image, grad_output. Outputs: grad_weight, [grad_bias].
Kernel make_pair_weight_grad_kernel(const WeightGradProblem& problem, int threads,
                                    const PairGradRun& entry);

}  // namespace pycnn::cpu
