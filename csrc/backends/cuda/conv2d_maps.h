#pragma once
#include <cstdint>

#include "backends/cuda/conv2d.h"
#include "backends/cuda/divider.h"

// Images and weights of a convolution moved to where those of an equal one lie, whose shape a
// library runs well (conv2d_rewrite.h). Nothing is rounded but weights to the images' type.
namespace pycnn::cuda {

// A pixel of `to` holds block_y x block_x pixels of `from`, each with its channels, row by row, and
// zeros behind them:
//   to[n, Y, X, (by * block_x + bx) * channels + c]
//     = from[n, Y * block_y + by - top, X * block_x + bx - left, c], 0 outside the image
// `to_channels` is a multiple of 16 bytes, and so are the addresses.
struct BlockMap {
  int images = 0, height = 0, width = 0, channels = 0;
  int block_y = 1, block_x = 1, top = 0, left = 0;
  int to_height = 0, to_width = 0, to_channels = 0;

  std::int64_t from_count() const { return std::int64_t{images} * height * width * channels; }
  std::int64_t to_count() const {
    return std::int64_t{images} * to_height * to_width * to_channels;
  }
};
// Whether its places can be counted.
bool fits(const BlockMap& map, int item_bytes);

void gather_blocks(DeviceQueue& queue, int item_bytes, const BlockMap& map, const void* from,
                   void* to);
// The way back; what no block has becomes zero.
void scatter_blocks(DeviceQueue& queue, int item_bytes, const BlockMap& map, const void* to,
                    void* from);
// The same of the sums of a convolution, without blocks: from = activate(to + bias + residual).
void finish_padded(DeviceQueue& queue, Image image, const BlockMap& map,
                   const ConvEpilogue& epilogue, const void* to, void* from);

// Weights (output channel, row, column, input channel of the group) whose `joined` groups become
// one with zeros off the diagonal, whose rows and columns are those of blocks (each a stride of the
// convolution, with zeros where a block reaches beyond the window or dilation leaves out), and with
// channels of zeros.
struct FilterMap {
  int out_channels = 0, kernel_height = 0, kernel_width = 0, in_group = 0, out_group = 0;
  int joined = 1;
  int block_y = 1, block_x = 1, dilation_y = 1, dilation_x = 1;  // of axes with blocks
  int to_out_channels = 0, to_height = 0, to_width = 0, to_in_group = 0;

  PYCNN_BOTH int channels() const { return joined * in_group; }
  std::int64_t from_count() const {
    return std::int64_t{out_channels} * kernel_height * kernel_width * in_group;
  }
  std::int64_t to_count() const {
    return std::int64_t{to_out_channels} * to_height * to_width * to_in_group;
  }
};
struct FilterMapping {
  FilterMap map;
  const float* from;
  void* to;
};
constexpr int kMostFilters = 40;  // what fits the parameters of a launch
void map_filters(DeviceQueue& queue, Image image, const FilterMapping* mappings, int count);
// The way back, of gradients: those of the zeros are left out. Each side is of a type of its own;
// nothing is rounded, so 16 bits stay what they are or are widened.
void unmap_filter(DeviceQueue& queue, const FilterMap& map, Image to_type, const void* to,
                  Image from_type, void* from);

}  // namespace pycnn::cuda
