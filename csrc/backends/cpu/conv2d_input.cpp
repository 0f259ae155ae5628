#include "backends/cpu/conv2d_input.h"

#include <algorithm>
#include <cstring>

namespace pycnn::cpu {
namespace {

// Rows of large powers of two would all fall into the same few cache sets.
Index spread(Index channels) { return channels % 64 == 0 ? 16 : 0; }

}  // namespace

ConvInput make_conv_input(const Shape& image, const Pair& stride, const TapRange& taps,
                          const Pair& output_size, bool merge) {
  ConvInput in;
  in.height = image[1], in.width = image[2], in.channels = image[3];
  in.image_pixel = in.channels;
  in.stride = stride;
  in.first_row = taps.first_row, in.first_column = taps.first_column;
  in.tap_rows = taps.last_row - taps.first_row + 1;
  in.buffer_columns = (output_size[1] - 1) * stride[1] + taps.last_column - taps.first_column + 1;
  const Index last_row = taps.last_row + (output_size[0] - 1) * stride[0];
  const Index last_column = taps.last_column + (output_size[1] - 1) * stride[1];
  in.direct = taps.first_row >= 0 && taps.first_column >= 0 && last_row < in.height &&
              last_column < in.width;
  in.pixel_pitch = in.channels + (!in.direct && !merge ? spread(in.channels) : 0);
  in.row_pitch = (in.direct ? in.width : in.buffer_columns) * in.pixel_pitch;
  return in;
}

void gather_pixels(ConvInput& in, const Pair& output_size) {
  in.direct = 0, in.gathered = 1;
  in.buffer_columns = output_size[1];
  in.pixel_pitch = in.channels + spread(in.channels);
  in.row_pitch = in.buffer_columns * in.pixel_pitch;
}

void ConvInput::copy_rows(const float* image, Index output_row, Index output_rows,
                          float* buffer) const {
  const std::size_t pixel_bytes = static_cast<std::size_t>(channels) * sizeof(float);
  const Index rows = buffer_rows(output_rows);
  if (gathered) {
    for (Index r = 0; r < rows; ++r) {
      const Index row = (output_row + r) * stride[0] + first_row;
      if (row >= height) break;  // the last chunk may be shorter
      const float* from = image + (row * width + first_column) * image_pixel;
      float* to = buffer + r * row_pitch;
      for (Index column = 0; column < buffer_columns; ++column) {
        std::memcpy(to, from, pixel_bytes);
        from += stride[1] * image_pixel, to += pixel_pitch;
      }
    }
    return;
  }
  // Columns [begin, end) of the buffer lie in the image.
  const Index begin = std::clamp<Index>(-first_column, 0, buffer_columns);
  const Index end = std::clamp<Index>(width - first_column, begin, buffer_columns);
  for (Index r = 0; r < rows; ++r) {
    float* to = buffer + r * row_pitch;
    const Index row = output_row * stride[0] + first_row + r;
    if (row < 0 || row >= height || begin == end) {
      std::fill_n(to, row_pitch, 0.0f);
      continue;
    }
    const float* from = image + (row * width + first_column + begin) * image_pixel;
    std::fill_n(to, begin * pixel_pitch, 0.0f);
    if (pixel_pitch == channels && image_pixel == channels) {
      std::memcpy(to + begin * pixel_pitch, from,
                  static_cast<std::size_t>(end - begin) * pixel_bytes);
    } else {
      for (Index column = begin; column < end; ++column, from += image_pixel)
        std::memcpy(to + column * pixel_pitch, from, pixel_bytes);
    }
    std::fill_n(to + end * pixel_pitch, (buffer_columns - end) * pixel_pitch, 0.0f);
  }
}

}  // namespace pycnn::cpu
