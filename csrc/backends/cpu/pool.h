#pragma once
#include <cstdint>

#include "core/half_types.h"

// Inner loops of pooling, built once per instruction set (pool_*.isa.cpp). float32 where nothing
// else is said, channels last, no alignment needed. Vectors run over the channels of one pixel. A
// pixel whose channels do not fill a vector may be written with a full vector all the same, since
// what spills lands in cells that the same call writes later; full vectors never pass the `_end`
// pointers. An `output_end` at `output` thus forbids them, where others write between the pixels.
namespace pycnn::cpu {

struct PoolColumns {
  std::int64_t channels;
  std::int64_t input_width;
  std::int64_t output_width;
  std::int64_t kernel;
  std::int64_t stride;
  std::int64_t dilation;
  std::int64_t left;
  std::int64_t interior_begin;  // windows in [begin, end) need no look at the image's border
  std::int64_t interior_end;
  std::int64_t input_pitch;   // elements from pixel to pixel of the image
  std::int64_t output_pitch;  // and from window to window
};

// One row of output windows. `input` points at column 0 of the row of the first tap inside the
// image; `taps` rows, `row_step` elements apart, belong to the window.
template <class T>
struct PoolRowOf {
  const T* input;
  const T* input_end;
  std::int64_t row_step;
  std::int64_t taps;
  T* output;
  const T* output_end;
  const PoolColumns* columns;
  const float* divisors;  // mean only: cells of the windows of this row, one a column
};
using PoolRow = PoolRowOf<float>;

// Gradient of one row of windows; pointers as in PoolRow.
struct MaxPoolGradRow {
  const float* input;
  std::int64_t row_step;
  std::int64_t taps;
  const float* grad_output;
  const float* grad_output_end;
  float* grad_input;
  std::int64_t channel_count;  // channels handled by this call, at most columns->channels
  const PoolColumns* columns;
};

// The gradient of max pooling of bfloat16 goes row by row, and in rows along the columns first.
// What lies between its steps are numbers of 16 bits, pixels `pitch` apart, a multiple of 32.
//
// Of one row of the image the largest tap of each window, and which one that is: the first of them.
// Taps are compared as whole numbers (keys) in the order of the floats: zeros are equal, a NaN is
// above all else.
struct MaxPoolTaps {
  const BFloat16* input;
  std::int64_t channel_count;  // channels handled by this call, at most columns->channels
  std::int64_t pitch;
  std::int16_t* keys;  // of the row, scratch; where `values` are wanted they are there already
  std::int16_t* best;  // of the windows: their largest keys
  std::int16_t* taps;
  std::int16_t* values;  // of the input at these taps, bits of BFloat16; or null
  const PoolColumns* columns;
};

// One row of windows from what it has in `rows` of the image, `size` numbers of each: which tap of
// all is the first largest one. Tap `kw` of row `kh` is number kh * kernel + kw.
struct MaxPoolWinners {
  const std::int16_t* const* best;  // one pointer for each row, likewise `taps`
  const std::int16_t* const* taps;
  std::int64_t rows;
  std::int64_t first_tap, row_taps;  // number of the first row's first tap; taps of a row
  std::int64_t size;
  std::int16_t* winners;
  const std::int16_t* const* values;  // as `best`, or null: then nobody asks for the winners'
  std::int16_t* winning;
};

constexpr std::int64_t kMostWindowTaps = 64;  // of windows whose winners are told by number

// One row of windows that hold a row of the image.
struct MaxPoolWindows {
  const std::int16_t* winners;
  const BFloat16* grad_output;
  std::int64_t first_tap;  // in that row
};

// A row of the gradient for the image: sums over windows in their order, rounded once. All of it is
// written.
struct MaxPoolGradOfRow {
  const MaxPoolWindows* windows;
  std::int64_t window_rows;
  std::int64_t pitch;  // of winners
  BFloat16* grad_input;
  std::int64_t channel_count;
  const PoolColumns* columns;
  const BFloat16* fetch;  // a row of the input that is wanted soon, or null
  bool streamed;          // the gradient is larger than a cache: past it
  bool disjoint;  // windows are: what one of them gives is no sum, and a zero keeps its sign
};

// grad_input[ih] of one image row from the windows that hold it: grad_output rows
// [first_row, end_row) of one image, scaled by scales[oh * output_width + ow].
struct AvgPoolGradRow {
  const float* grad_output;
  const float* grad_output_end;
  const float* scales;
  std::int64_t first_row;
  std::int64_t end_row;
  float* grad_input;
  const float* grad_input_end;
  const PoolColumns* columns;
};

// One row of windows that cover the image evenly. `input` points at the first row of the windows.
struct AdaptivePoolRow {
  const float* input;
  std::int64_t rows;  // of the windows
  std::int64_t input_width;
  std::int64_t output_width;
  std::int64_t channels;
  float* output;
};

// Gradient of one image row. `grad_output` and `scales` (1 / cells of a window) point at the first
// row of windows that hold it; there are `rows` of them.
struct AdaptivePoolGradRow {
  const float* grad_output;
  const float* scales;
  std::int64_t rows;
  std::int64_t input_width;
  std::int64_t output_width;
  std::int64_t channels;
  float* grad_input;
};

// Rows of 2x2 windows that cover an image, whose rows follow one another: `image` is read and
// `windows` written, or in gradients the other way around.
struct WindowsOfFour {
  BFloat16* image;
  BFloat16* windows;
  std::int64_t rows, columns;  // of windows
  std::int64_t channels;
};

// All pixels of one image, `count` channels of pixels that are `channels` floats apart. Means are
// summed in blocks of kPixelBlock pixels, then over the blocks.
struct GlobalPool {
  const float* input;  // of the image: not for global_avg_pool_grad
  const float* input_end;
  std::int64_t pixels;  // at least 1
  std::int64_t channels;
  std::int64_t count;
  const float* grad_output;  // gradients only: `count` values
  float* output;             // `count` values, or the gradient of the image
};
constexpr std::int64_t kPixelBlock = 32;

#define PYCNN_DECLARE_POOL(ISA)                                         \
  namespace ISA {                                                       \
  void max_pool_row(const PoolRow&) noexcept;                           \
  /* Windows are disjoint: every cell of every window is                \
     written, 0 or the gradient. */                                     \
  void max_pool_grad_row_disjoint(const MaxPoolGradRow&) noexcept;      \
  /* Adds to grad_input, which the caller has zeroed. */                \
  void max_pool_grad_row_overlapping(const MaxPoolGradRow&) noexcept;   \
  void adaptive_avg_pool_row(const AdaptivePoolRow&) noexcept;          \
  void adaptive_avg_pool_grad_row(const AdaptivePoolGradRow&) noexcept; \
  void avg_pool_row(const PoolRow&) noexcept;                           \
  void avg_pool_grad_row(const AvgPoolGradRow&) noexcept;               \
  void global_avg_pool(const GlobalPool&) noexcept;                     \
  void global_avg_pool_grad(const GlobalPool&) noexcept;                \
  void global_max_pool(const GlobalPool&) noexcept;                     \
  void global_max_pool_grad(const GlobalPool&) noexcept;                \
  }
PYCNN_DECLARE_POOL(baseline)
PYCNN_DECLARE_POOL(avx2)
PYCNN_DECLARE_POOL(avx512)
#undef PYCNN_DECLARE_POOL

namespace avx512 {
// Means of 2x2 windows side by side, and their gradient, of at most 32 channels: several windows
// are a vector. `rows` are those of windows.
void mean_of_four_bfloat16(const WindowsOfFour&) noexcept;
void mean_of_four_grad_bfloat16(const WindowsOfFour&) noexcept;
// Never writes past the channels of a pixel. A NaN in the window gives the one without payload.
void max_pool_row_bfloat16(const PoolRowOf<BFloat16>&) noexcept;
void max_pool_taps(const MaxPoolTaps&) noexcept;
void max_pool_winners(const MaxPoolWinners&) noexcept;
void max_pool_grad_of_row(const MaxPoolGradOfRow&) noexcept;
}  // namespace avx512

}  // namespace pycnn::cpu
