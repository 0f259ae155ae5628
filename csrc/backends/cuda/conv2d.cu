#include "backends/cuda/columns.h"
#include "backends/cuda/conv2d.h"
#include "backends/cuda/map.h"
#include "backends/cuda/tiled_product.h"

namespace pycnn::cuda {
namespace {

// A place in an image before a tap of the window is added to it.
struct Spot {
  std::int64_t offset;  // of the image's first element
  int y, x;
};
struct Tap {
  int y, x, channel;
};

// Rows are output pixels, columns output channels of a group, terms the cells of a window.
template <class T>
struct Forward {
  static constexpr bool kAByDepth = true, kBByDepth = true;
  std::int64_t rows, columns, batches;
  ConvShape s;
  const T* input;
  const float* weight;
  ConvEpilogue epilogue;
  T* output;

  PYCNN_BOTH std::int64_t begin(std::int64_t) const { return 0; }
  PYCNN_BOTH std::int64_t end(std::int64_t) const { return s.window(); }

  PYCNN_BOTH Spot a_row(std::int64_t group, std::int64_t m) const {
    const int pixel = static_cast<int>(m), ow = pixel % s.out_width;
    const int oh = pixel / s.out_width % s.out_height, n = pixel / s.out_width / s.out_height;
    return {std::int64_t{n} * s.height * s.width * s.in_channels + group * s.in_group(),
            oh * s.stride_y - s.top, ow * s.stride_x - s.left};
  }
  PYCNN_BOTH Tap a_depth(std::int64_t k) const {
    const int cell = static_cast<int>(k), ic = cell % s.in_group(), tap = cell / s.in_group();
    return {tap / s.kernel_width * s.dilation_y, tap % s.kernel_width * s.dilation_x, ic};
  }
  PYCNN_BOTH float a(const Spot& spot, const Tap& tap) const {
    const int y = spot.y + tap.y, x = spot.x + tap.x;
    if (y < 0 || y >= s.height || x < 0 || x >= s.width) return 0.0f;
    return widened(
        input[spot.offset + (std::int64_t{y} * s.width + x) * s.in_channels + tap.channel]);
  }
  PYCNN_BOTH std::int64_t b_column(std::int64_t group, std::int64_t n) const {
    return (group * s.out_group() + n) * s.window();
  }
  PYCNN_BOTH std::int64_t b_depth(std::int64_t k) const { return k; }
  PYCNN_BOTH float b(std::int64_t column, std::int64_t k) const {
    return rounded<T>(weight[column + k]);
  }
  PYCNN_BOTH void store(std::int64_t group, std::int64_t m, std::int64_t n, float sum) const {
    const std::int64_t oc = group * s.out_group() + n, at = m * s.out_channels + oc;
    if (epilogue.bias != nullptr) sum += epilogue.bias[oc];
    if (epilogue.residual != nullptr) sum += widened(static_cast<const T*>(epilogue.residual)[at]);
    narrow(activate(epilogue.curve, sum), output[at]);
  }
};

template <class T>
struct AddEpilogue {
  static constexpr int kWidth = kVector<T>;
  std::int64_t channels;
  ConvEpilogue epilogue;
  T* output;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float y[kWidth], r[kWidth] = {};
    load(output + begin, n, y);
    if (epilogue.residual != nullptr) load(static_cast<const T*>(epilogue.residual) + begin, n, r);
    std::int64_t c = begin % channels;
    for (int i = 0; i < n && i < kWidth; ++i) {
      if (epilogue.bias != nullptr) y[i] += epilogue.bias[c];
      y[i] = activate(epilogue.curve, y[i] + r[i]);
      c = c + 1 == channels ? 0 : c + 1;
    }
    store(output + begin, n, y);
  }
};

// Rows are input pixels, columns input channels of a group, terms (tap, output channel).
template <class T>
struct GradInput {
  static constexpr bool kAByDepth = true, kBByDepth = false;
  std::int64_t rows, columns, batches;
  ConvShape s;
  const T* grad_output;
  const float* weight;
  T* grad_input;

  PYCNN_BOTH std::int64_t begin(std::int64_t) const { return 0; }
  PYCNN_BOTH std::int64_t end(std::int64_t) const {
    return std::int64_t{s.kernel_height} * s.kernel_width * s.out_group();
  }

  PYCNN_BOTH Spot a_row(std::int64_t group, std::int64_t m) const {
    const int pixel = static_cast<int>(m), w = pixel % s.width;
    const int h = pixel / s.width % s.height, n = pixel / s.width / s.height;
    return {std::int64_t{n} * s.out_height * s.out_width * s.out_channels + group * s.out_group(),
            h + s.top, w + s.left};
  }
  PYCNN_BOTH Tap a_depth(std::int64_t k) const {
    const int cell = static_cast<int>(k), oc = cell % s.out_group(), tap = cell / s.out_group();
    return {tap / s.kernel_width * s.dilation_y, tap % s.kernel_width * s.dilation_x, oc};
  }
  // The output pixel whose window has this tap on the spot, if there is one.
  PYCNN_BOTH float a(const Spot& spot, const Tap& tap) const {
    const int y = spot.y - tap.y, x = spot.x - tap.x;
    if (y < 0 || x < 0 || y % s.stride_y != 0 || x % s.stride_x != 0) return 0.0f;
    const int oh = y / s.stride_y, ow = x / s.stride_x;
    if (oh >= s.out_height || ow >= s.out_width) return 0.0f;
    return widened(
        grad_output[spot.offset + (std::int64_t{oh} * s.out_width + ow) * s.out_channels +
                    tap.channel]);
  }
  PYCNN_BOTH std::int64_t b_column(std::int64_t group, std::int64_t n) const {
    return group * s.out_group() * s.window() + n;
  }
  PYCNN_BOTH std::int64_t b_depth(std::int64_t k) const {
    const std::int64_t oc = k % s.out_group(), tap = k / s.out_group();
    return oc * s.window() + tap * s.in_group();
  }
  PYCNN_BOTH float b(std::int64_t column, std::int64_t depth) const {
    return rounded<T>(weight[column + depth]);
  }
  PYCNN_BOTH void store(std::int64_t group, std::int64_t m, std::int64_t n, float sum) const {
    narrow(sum, grad_input[m * s.in_channels + group * s.in_group() + n]);
  }
};

// Rows are output channels of a group, columns (tap, input channel), terms output pixels. Each
// chunk of pixels is a batch of its own.
template <class T>
struct GradWeight {
  static constexpr bool kAByDepth = false, kBByDepth = false;
  std::int64_t rows, columns, batches;
  ConvShape s;
  const T* input;
  const T* grad_output;
  float* sums;  // (chunk, weights)
  std::int64_t chunks, chunk_pixels;

  PYCNN_BOTH std::int64_t begin(std::int64_t batch) const { return batch % chunks * chunk_pixels; }
  PYCNN_BOTH std::int64_t end(std::int64_t batch) const {
    const std::int64_t end = begin(batch) + chunk_pixels;
    return end < s.pixels() ? end : s.pixels();
  }

  PYCNN_BOTH std::int64_t a_row(std::int64_t batch, std::int64_t m) const {
    return batch / chunks * s.out_group() + m;
  }
  PYCNN_BOTH std::int64_t a_depth(std::int64_t k) const { return k * s.out_channels; }
  PYCNN_BOTH float a(std::int64_t oc, std::int64_t pixel) const {
    return widened(grad_output[pixel + oc]);
  }
  PYCNN_BOTH Tap b_column(std::int64_t batch, std::int64_t n) const {
    const int cell = static_cast<int>(n), ic = cell % s.in_group(), tap = cell / s.in_group();
    return {tap / s.kernel_width * s.dilation_y, tap % s.kernel_width * s.dilation_x,
            static_cast<int>(batch / chunks) * s.in_group() + ic};
  }
  PYCNN_BOTH Spot b_depth(std::int64_t k) const {
    const int pixel = static_cast<int>(k), ow = pixel % s.out_width;
    const int oh = pixel / s.out_width % s.out_height, n = pixel / s.out_width / s.out_height;
    return {std::int64_t{n} * s.height * s.width * s.in_channels, oh * s.stride_y - s.top,
            ow * s.stride_x - s.left};
  }
  PYCNN_BOTH float b(const Tap& tap, const Spot& spot) const {
    const int y = spot.y + tap.y, x = spot.x + tap.x;
    if (y < 0 || y >= s.height || x < 0 || x >= s.width) return 0.0f;
    return widened(
        input[spot.offset + (std::int64_t{y} * s.width + x) * s.in_channels + tap.channel]);
  }
  PYCNN_BOTH void store(std::int64_t batch, std::int64_t m, std::int64_t n, float sum) const {
    const std::int64_t oc = batch / chunks * s.out_group() + m;
    sums[batch % chunks * s.weights() + oc * s.window() + n] = sum;
  }
};

struct AddChunks {
  static constexpr int kWidth = 1;
  const float* sums;
  float* output;
  std::int64_t chunks, count;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    double sum = 0.0;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk)
      sum += static_cast<double>(sums[chunk * count + at]);
    output[at] = static_cast<float>(sum);
  }
};

template <class T>
struct BiasTerm {
  static constexpr int kSums = 1;
  const T* grad_output;
  std::int64_t channels;
  PYCNN_BOTH void operator()(std::int64_t pixel, std::int64_t c, float (&values)[1]) const {
    values[0] = widened(grad_output[pixel * channels + c]);
  }
};
struct BiasFinish {
  float* grad_bias;
  PYCNN_BOTH void operator()(std::int64_t, std::int64_t c, const double (&sums)[1]) const {
    grad_bias[c] = static_cast<float>(sums[0]);
  }
};

// Enough blocks for the largest GPUs, each with a good piece of work.
constexpr std::int64_t kWantedBlocks = 528, kLeastChunk = 1024;

std::int64_t chunks_of(const ConvShape& s) {
  constexpr std::int64_t kTile = 64;
  const auto tiles = [](std::int64_t size) { return (size + kTile - 1) / kTile; };
  const std::int64_t blocks = tiles(s.out_group()) * tiles(s.window()) * s.groups;
  const std::int64_t wanted = (kWantedBlocks + blocks - 1) / blocks;
  const std::int64_t most = (s.pixels() + kLeastChunk - 1) / kLeastChunk;
  return wanted < most ? wanted : most > 1 ? most : 1;
}

ColumnShape bias_shape(const ConvShape& s) { return {1, s.pixels(), s.out_channels}; }

}  // namespace

void conv2d(DeviceQueue& queue, Image image, const ConvShape& shape, const void* input,
            const float* weight, const ConvEpilogue& epilogue, void* output) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_product(
        queue, Forward<T>{shape.pixels(), shape.out_group(), shape.groups, shape,
                          static_cast<const T*>(input), weight, epilogue, static_cast<T*>(output)});
  });
}

void conv2d_epilogue(DeviceQueue& queue, Image image, const ConvShape& shape,
                     const ConvEpilogue& epilogue, void* output) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_map(queue, AddEpilogue<T>{shape.out_channels, epilogue, static_cast<T*>(output)},
               shape.pixels() * shape.out_channels);
  });
}

void conv2d_grad_input(DeviceQueue& queue, Image image, const ConvShape& shape,
                       const void* grad_output, const float* weight, void* grad_input) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_product(queue, GradInput<T>{std::int64_t{shape.images} * shape.height * shape.width,
                                       shape.in_group(), shape.groups, shape,
                                       static_cast<const T*>(grad_output), weight,
                                       static_cast<T*>(grad_input)});
  });
}

std::int64_t conv2d_grad_weight_scratch_bytes(const ConvShape& shape, bool bias) {
  const std::int64_t chunks = chunks_of(shape);
  const std::int64_t partials = chunks > 1 ? chunks * shape.weights() : 0;
  return partials * static_cast<std::int64_t>(sizeof(float)) +
         (bias ? conv2d_grad_bias_scratch_bytes(shape) : 0);
}

void conv2d_grad_weight(DeviceQueue& queue, Image image, const ConvShape& shape, const void* input,
                        const void* grad_output, float* grad_weight, float* grad_bias,
                        void* scratch) {
  const std::int64_t chunks = chunks_of(shape);
  const std::int64_t chunk_pixels = (shape.pixels() + chunks - 1) / chunks;
  auto* const sums = static_cast<float*>(scratch);
  with_image(image, [&](auto type) {
    using T = decltype(type);
    const auto* gradient = static_cast<const T*>(grad_output);
    launch_product(queue, GradWeight<T>{shape.out_group(), shape.window(), shape.groups * chunks,
                                        shape, static_cast<const T*>(input), gradient,
                                        chunks > 1 ? sums : grad_weight, chunks, chunk_pixels});
    if (chunks > 1)
      launch_map(queue, AddChunks{sums, grad_weight, chunks, shape.weights()}, shape.weights());
  });
  if (grad_bias != nullptr)
    conv2d_grad_bias(queue, image, shape, grad_output, grad_bias,
                     chunks > 1 ? sums + chunks * shape.weights() : sums);
}

std::int64_t conv2d_grad_bias_scratch_bytes(const ConvShape& shape) {
  return column_scratch_bytes(bias_shape(shape), BiasTerm<float>::kSums);
}

void conv2d_grad_bias(DeviceQueue& queue, Image image, const ConvShape& shape,
                      const void* grad_output, float* grad_bias, void* scratch) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_column_sums(queue, BiasTerm<T>{static_cast<const T*>(grad_output), shape.out_channels},
                       BiasFinish{grad_bias}, bias_shape(shape), static_cast<float*>(scratch));
  });
}

}  // namespace pycnn::cuda
