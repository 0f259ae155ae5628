#pragma once
#include "backends/cpu/strassen.h"

// Inner loops of weight gradients by Strassen's algorithm in Winograd's form, with the names of
// strassen.h and for AVX-512 alone, as there. Plain pointers and counts only.
//
// C = A B, where A holds gradients of the output, transposed, and B inputs. What is summed over are
// pixels, in pairs: A11, A12 are the lower half of the output channels of a pair's first and second
// pixel, A21, A22 the upper half; B11, B12 are the halves of the first pixel's inputs, B21, B22
// those of the second's:
//   S1 = A21 + A22, S2 = S1 - A11, S3 = A11 - A21, S4 = A12 - S2
//   T1 = B12 - B11, T2 = B22 - T1, T3 = B22 - B12, T4 = T2 - B21
//   P1 = A11 B11, P2 = A12 B21, P3 = S4 B22, P4 = A22 T4, P5 = S1 T1, P6 = S2 T2, P7 = S3 T3
//   C11 = P1 + P2, U2 = P1 + P6, U3 = U2 + P7, U4 = U2 + P5
//   C12 = U4 + P3, C21 = U3 - P4, C22 = U3 + P5
// Each product has sums of its own, over all pixels; they become C in the end.
//
// Numerics: one accumulator per product and element for the pairs of a call, in their order; what
// accumulates adds the sum of each call to what was there.
namespace pycnn::cpu {

constexpr int kStrassenGradProducts = 7;

// The pixels of a call, and the channels of both operands that it multiplies.
struct StrassenGradUnit {
  const float* grad = nullptr;  // the lower channels of the first pixel
  Index grad_pixel = 0;         // floats from pixel to pixel
  Index grad_half = 0;          // from the lower channels to the upper ones; likewise `input_half`
  const float* input = nullptr;
  const Index* pixels = nullptr;  // floats from `input` to those of each pixel; kNoPixel are zeros
  Index input_half = 0;
  Index pairs = 0;
  Index outputs = 0;  // of each half
  Index inputs = 0;   // of each half, a multiple of 2 * lanes
  // Sums of the left sides of kStrassenGroup panels of kGemmScalars outputs, one group at a time,
  // and of all right sides: as many floats as the functions below tell.
  float* panels = nullptr;
  float* blocks = nullptr;
  // [product][block of inputs][panel of outputs][kGemmScalars][2 * lanes], products at `plane`.
  float* sums = nullptr;
  Index plane = 0;
  bool accumulate = false;  // else the sums are overwritten
};

// Overwrites both halves of `outputs` rows of c from the sums of the seven products.
struct StrassenGradResult {
  const float* sums = nullptr;
  Index plane = 0;
  Index outputs = 0, inputs = 0;  // of each half, as of the sums
  float* c = nullptr;
  Index c_pitch = 0;               // from row to row
  Index c_lower = 0, c_right = 0;  // from the lower outputs to the upper ones; likewise inputs
};

namespace avx512 {
constexpr Index kStrassenGroup = 4;  // panels
Index strassen_grad_panel_floats(Index pairs);
Index strassen_grad_block_floats(Index pairs, Index inputs);
void strassen_grad_products(const StrassenGradUnit& job);
void strassen_grad_result(const StrassenGradResult& job);
}  // namespace avx512

}  // namespace pycnn::cpu
