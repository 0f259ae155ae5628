#pragma once
#include "backends/cpu/conv2d_window.h"
#include "backends/cpu/pair_products.h"

// Conv2d, Conv2dGradInput, Dense and DenseGradInput in bfloat16, as products of blocks of pixels
// with blocks of channels (pair_products.h). Images are bfloat16, weight and bias float32; weights
// are rounded when they are packed.
//
// As in conv2d_window.h, all four are passes over taps. What is particular here is how the rows of
// the left operand are found, since a load takes 16 rows of 64 bytes at one step:
//
// - Pixels are read in place where a pixel's channels are the whole sum (1x1, dense).
// - Else a chunk's rows of the input are copied, with zeros around them, to
//   [32 channels][pixel][32], so that the 16 pixels of a load are 16 neighbouring cache lines. With
//   a stride, pixels are sorted by their position modulo the stride: each tap again meets
//   neighbours. Output pixels are counted through the padded rows; those that fall into padding are
//   computed and dropped. (Where rows are multiplied one by one, each output row is cut into pieces
//   of up to 14 pixels instead.)
// - Few channels are copied as they lie, and a load takes the pixels of a tap's whole row: sums of
//   KW * C elements without an im2col.
//
// With groups, a block of output channels multiplies the 32-channel blocks of its groups only, and
// zeros where the groups are smaller. A NaN or an infinity in a channel may then reach the groups
// that share its block of 32.
namespace pycnn::cpu {

// Why a unit cannot be used, or null.
const char* refuse_amx();
const char* refuse_avx512_bf16();
// The portable loops are there to be compared with: float32's kernels are faster.
const char* refuse_portable(const Problem& problem);

struct PairRun {
  KernelFunction run;
  KernelFunction run_unpacked;  // of dense layers and 1x1 windows
  KernelFunction pack;
  Index most_rows;  // of a half
};
extern const PairRun kPairsPortable;
#if PYCNN_HAVE_AVX512
extern const PairRun kPairsAvx512;
extern const PairRun kPairsAmx;
#endif

// Inputs of the kernel: image, packed weight (unpacked: the weight), [bias], [residual], [mask].
Kernel make_pair_kernel(const WindowProblem& window, int threads, const PairRun& entry);

}  // namespace pycnn::cpu
