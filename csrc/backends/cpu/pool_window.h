#pragma once
#include <algorithm>
#include <cstdint>

#include "backends/backend.h"
#include "backends/cpu/pool.h"

// The geometry of pooling windows, shared by all kernels of pool_*.cpp.
namespace pycnn::cpu {

// The taps of one window along one axis that lie inside the image: tap k reads position
// `start + k * dilation` for k in [first, end). Empty when first >= end.
struct Taps {
  std::int64_t start = 0;  // may be negative: the window may begin in the padding
  std::int64_t first = 0;
  std::int64_t end = 0;
};

struct PoolAxis {
  std::int64_t input = 0;   // cells of the image
  std::int64_t output = 0;  // windows
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t dilation = 1;
  std::int64_t before = 0;  // padding
  std::int64_t after = 0;

  Taps taps(std::int64_t o) const noexcept {
    Taps t;
    t.start = o * stride - before;
    t.first = t.start < 0 ? (-t.start + dilation - 1) / dilation : 0;
    t.end =
        t.start < input ? std::min(kernel, (input - t.start + dilation - 1) / dilation) : t.first;
    return t;
  }
  // Windows in [interior_begin(), interior_end()) lie wholly inside the image.
  std::int64_t interior_begin() const noexcept {
    return std::min(output, (before + stride - 1) / stride);
  }
  std::int64_t interior_end() const noexcept {
    const std::int64_t last_start = input - 1 - (kernel - 1) * dilation + before;
    const std::int64_t end = last_start < 0 ? 0 : std::min(output, last_start / stride + 1);
    return std::max(end, interior_begin());
  }
  // No cell of the image belongs to two windows.
  bool disjoint() const noexcept { return (kernel - 1) * dilation + 1 <= stride; }
  // Every cell of the image belongs to a window (asked of disjoint windows only).
  bool covers() const noexcept {
    return kernel == stride && (dilation == 1 || kernel == 1) && output * stride - before >= input;
  }
  // How many cells of window o count towards a mean: those inside the image, or also those in the
  // padding. With ceil_mode a window may reach beyond the padding; what lies there never counts
  // (as PyTorch).
  std::int64_t mean_cells(std::int64_t o, bool count_padding) const noexcept {
    const std::int64_t start = o * stride - before;
    const std::int64_t end = std::min(start + kernel, input + after);
    return count_padding
               ? std::max<std::int64_t>(end - start, 1)
               : std::max<std::int64_t>(std::min(end, input) - std::max<std::int64_t>(start, 0), 1);
  }
  // The windows that hold cell i (dilation 1): [first_window(i), end_window(i)).
  std::int64_t first_window(std::int64_t i) const noexcept {
    const std::int64_t below = i + before - kernel + 1;
    return below <= 0 ? 0 : (below + stride - 1) / stride;
  }
  std::int64_t end_window(std::int64_t i) const noexcept {
    return std::min(output, (i + before) / stride + 1);
  }
};

struct PoolGeometry {
  std::int64_t images = 0;
  std::int64_t channels = 0;
  PoolAxis rows;
  PoolAxis columns;
  std::int64_t input_pitch = 0;  // elements from pixel to pixel; more than `channels` if apart
  std::int64_t output_pitch = 0;

  std::int64_t input_row() const noexcept { return columns.input * input_pitch; }
  std::int64_t output_row() const noexcept { return columns.output * output_pitch; }
  std::int64_t input_image() const noexcept { return rows.input * input_row(); }
  std::int64_t output_image() const noexcept { return rows.output * output_row(); }
  // From the first element to the end of the last.
  std::int64_t input_size() const noexcept {
    return images * input_image() - (input_pitch - channels);
  }
  std::int64_t output_size() const noexcept {
    return images * output_image() - (output_pitch - channels);
  }
};

// `image` is the larger tensor, (N, H, W, C), `pooled` the smaller one, (N, OH, OW, C).
template <class PoolOp>
PoolGeometry pool_geometry(const PoolOp& op, const TensorSpec& image,
                           const TensorSpec& pooled) noexcept {
  Pair dilation = {1, 1};
  if constexpr (requires { op.dilation; }) dilation = op.dilation;
  PoolGeometry g;
  g.images = image.shape[0];
  g.channels = g.input_pitch = g.output_pitch = image.shape[3];
  g.rows = {image.shape[1], pooled.shape[1], op.kernel_size[0], op.stride[0],
            dilation[0],    op.padding.top,  op.padding.bottom};
  g.columns = {image.shape[2], pooled.shape[2], op.kernel_size[1], op.stride[1],
               dilation[1],    op.padding.left, op.padding.right};
  return g;
}

inline PoolColumns pool_columns(const PoolGeometry& g) noexcept {
  const PoolAxis& w = g.columns;
  return {g.channels,       w.input,       w.output,      w.kernel,
          w.stride,         w.dilation,    w.before,      w.interior_begin(),
          w.interior_end(), g.input_pitch, g.output_pitch};
}

// AVX-512 vectors that hold few channels are mostly waste, and their loads cross cache lines; then
// AVX2 is faster. Only where it is built: the other variants take any number of channels.
inline bool few_channels(const TensorSpec& image) noexcept {
#if PYCNN_HAVE_AVX2
  return image.shape[3] <= 8;
#else
  return image.shape.empty();
#endif
}
constexpr const char* kFewChannels = "at most 8 channels: shorter vectors are faster";

// Items of `item_floats` floats each that make a chunk worth handing to a thread: a function of
// the shape alone.
inline std::int64_t chunk_items(std::int64_t item_floats, std::int64_t floats = 8192) noexcept {
  return std::max<std::int64_t>(1, floats / std::max<std::int64_t>(item_floats, 1));
}

}  // namespace pycnn::cpu
