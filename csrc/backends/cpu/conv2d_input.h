#pragma once
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

#include "backends/cpu/gemm.h"
#include "core/ceil_div.h"
#include "pycnn/ops.h"

// How the tiles of a convolution see an image: in place when every tap of every output pixel lies
// inside it, else through a copy of a few rows with zeros around them.
namespace pycnn::cpu {

struct ConvInput {
  Index height = 0, width = 0, channels = 0;
  Pair stride = {1, 1};      // input pixels per output pixel
  Index first_row = 0;       // of the topmost tap of output row 0; negative in padding
  Index first_column = 0;    // likewise
  Index tap_rows = 0;        // rows from the topmost to the lowest tap
  Index buffer_columns = 0;  // columns that the taps of one output row touch
  Index direct = 0;       // a flag; plans have no padding bytes, so that equal ones compare equal
  Index gathered = 0;     // likewise: the copy holds the stride's pixels alone
  Index pixel_pitch = 0;  // floats from pixel to pixel and from row to row, image or copy
  Index row_pitch = 0;
  Index image_pixel = 0;  // floats from pixel to pixel of the image

  // Pixels of image or copy from one output pixel to the next.
  Index step(int axis) const { return gathered ? 1 : stride[axis]; }
  Index buffer_rows(Index output_rows) const { return (output_rows - 1) * step(0) + tap_rows; }
  Index buffer_floats(Index output_rows) const { return buffer_rows(output_rows) * row_pitch; }
  Index image_floats() const { return height * width * image_pixel; }
  // The same for an image whose pixels lie apart. One that is read in place must have its only tap
  // at the anchor, for the offsets of taps stay.
  ConvInput with_pixels(Index pitch) const {
    ConvInput result = *this;
    result.image_pixel = pitch;
    if (direct) result.pixel_pitch = pitch, result.row_pitch = width * pitch;
    return result;
  }
  Index row_step() const { return step(0) * row_pitch; }
  Index column_step() const { return step(1) * pixel_pitch; }
  // Offset of a tap from the anchor of its output pixel.
  Index tap_offset(Index row, Index column) const {
    return (row - first_row) * row_pitch + (column - first_column) * pixel_pitch;
  }
  // Where the anchor of output pixel (output_row, 0) lies in an image that is read in place.
  Index anchor(Index output_row) const {
    return (output_row * stride[0] + first_row) * row_pitch + first_column * pixel_pitch;
  }
  const float* anchor(const float* image, Index output_row) const {
    return image + anchor(output_row);
  }
  // Copies what `output_rows` rows from `output_row` on need; their anchor is then `buffer`.
  void copy_rows(const float* image, Index output_row, Index output_rows, float* buffer) const;
};

// Rows and columns that the taps of all output pixels span.
struct TapRange {
  Index first_row = 0, last_row = 0, first_column = 0, last_column = 0;
};

// `merge`: taps of one row are to be read as one run, so pixels must follow one another.
ConvInput make_conv_input(const Shape& image, const Pair& stride, const TapRange& taps,
                          const Pair& output_size, bool merge);
// Has a single strided tap read a copy in which the pixels between are left out: in place they
// would take part in the caches all the same.
void gather_pixels(ConvInput& in, const Pair& output_size);

// Runs shorter than this are worth merging across the taps of a row.
constexpr Index kMergeBelow = 32;

// Work that is worth handing to another thread.
constexpr double kChunkFlops = 3e6;

// Plans are a struct followed by tables.
template <class T>
void append_to_plan(std::vector<std::byte>& plan, const T* items, std::size_t count) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::size_t at = plan.size();
  plan.resize(at + count * sizeof(T));
  if (count > 0) std::memcpy(plan.data() + at, items, count * sizeof(T));
}

}  // namespace pycnn::cpu
