#pragma once
#include <cstdint>

// Inner loops of local response normalisation, built once per instruction set. One pixel at a time:
// its channels stand in a row of the scratch with zeros on both sides, so that every window is
// whole and vectors may run past the last channel.
namespace pycnn::cpu {

struct LrnPixels {
  const float* input;
  const float* grad_output;  // gradient only
  float* output;             // or grad_input; may be the same memory as an input
  std::int64_t pixels;
  std::int64_t channels;
  std::int64_t before;  // window c reaches from c - before to c + after
  std::int64_t after;
  float alpha_over_size;
  float beta;
  float k;
  float* scratch;  // kLrnRows * lrn_row_floats(channels, before, after) floats
};

constexpr std::int64_t kLrnRows = 3;
// The channels, the window's reach and a vector to either side.
constexpr std::int64_t lrn_row_floats(std::int64_t channels, std::int64_t before,
                                      std::int64_t after) noexcept {
  return (channels + before + after + 3 * 16 + 15) / 16 * 16;
}

#define PYCNN_DECLARE_LRN(ISA)                  \
  namespace ISA {                               \
  void lrn_forward(const LrnPixels&) noexcept;  \
  void lrn_gradient(const LrnPixels&) noexcept; \
  }
PYCNN_DECLARE_LRN(baseline)
PYCNN_DECLARE_LRN(avx2)
PYCNN_DECLARE_LRN(avx512)
#undef PYCNN_DECLARE_LRN

}  // namespace pycnn::cpu
