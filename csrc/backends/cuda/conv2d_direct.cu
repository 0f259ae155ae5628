// Convolutions of few channels on both sides (first layers of nets for small images), which would
// fill a corner of a tile: each thread adds up the products of two pixels for all output channels.
#include "backends/cuda/conv2d_direct.h"
#include "backends/cuda/divider.h"
#include "backends/cuda/launch.h"

namespace pycnn::cuda {
namespace {

// Output channels, of which kOut >= channels are computed, have the weights' last axis in shared
// memory, and sums their pixels' rows there, one element apart so that banks differ.
template <class T, int kOut>
struct DirectConv {
  static constexpr int kThreads = 256, kPixels = 2, kTile = kThreads * kPixels;
  struct Shared {
    float weight[kMostDirectWindow][kOut];
    float sum[kTile][kOut + 1];
  };
  struct Registers {};
  ConvShape s;
  ConvEpilogue epilogue;
  const T* input;
  const T* weights;
  T* output;
  int weight_pitch, row_pitch, tap_pitch;  // elements between channels, rows of a window, its taps
  Divider out_width, out_height, channels;

  PYCNN_BOTH std::int64_t blocks() const { return (s.pixels() + kTile - 1) / kTile; }
  PYCNN_BOTH void operator()(Block<DirectConv>& block) const {
    const std::int64_t first = block.index() * kTile, rest = s.pixels() - first;
    const int pixels = rest < kTile ? static_cast<int>(rest) : kTile;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      for (int i = thread; i < s.window() * kOut; i += kThreads) {
        const int place = i / kOut, oc = i % kOut;
        const int tap = place / s.in_channels, c = place % s.in_channels;
        const int from = oc * weight_pitch + tap / s.kernel_width * row_pitch +
                         tap % s.kernel_width * tap_pitch + c;
        shared.weight[place][oc] = oc < s.out_channels ? widened(weights[from]) : 0.0f;
      }
    });
    block.each([&](int thread, Registers&) { add_products(shared, first, pixels, thread); });
    block.last([&](int thread, Registers&) {
      for (int i = thread * kVector<T>; i < pixels * s.out_channels; i += kThreads * kVector<T>)
        finish(shared, first, i, pixels * s.out_channels - i);
    });
  }

 private:
  PYCNN_BOTH void add_products(Shared& shared, std::int64_t first, int pixels, int thread) const {
    int y[kPixels], x[kPixels];  // of the window's first tap
    const T* image[kPixels];
    float sum[kPixels][kOut] = {};
    PYCNN_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      auto column =
          static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(thread + p * kThreads);
      const bool inside = thread + p * kThreads < pixels;
      if (!inside) column = 0;
      std::uint32_t row = out_width.split(column);
      const std::uint32_t n = out_height.split(row);
      // Above every image, where there is no pixel.
      y[p] = inside ? static_cast<int>(row) * s.stride_y - s.top : -(1 << 30);
      x[p] = static_cast<int>(column) * s.stride_x - s.left;
      image[p] = input + std::int64_t{n} * s.height * s.width * s.input_pitch();
    }
    int place = 0;
    for (int kh = 0; kh < s.kernel_height; ++kh)
      for (int kw = 0; kw < s.kernel_width; ++kw) {
        const T* from[kPixels];
        PYCNN_UNROLL
        for (int p = 0; p < kPixels; ++p) {
          const int ih = y[p] + kh * s.dilation_y, iw = x[p] + kw * s.dilation_x;
          const bool inside = static_cast<unsigned>(ih) < static_cast<unsigned>(s.height) &&
                              static_cast<unsigned>(iw) < static_cast<unsigned>(s.width);
          from[p] =
              inside ? image[p] + (std::int64_t{ih} * s.width + iw) * s.input_pitch() : nullptr;
        }
        for (int c = 0; c < s.in_channels; ++c, ++place) {
          PYCNN_UNROLL
          for (int p = 0; p < kPixels; ++p) {
            const float value = from[p] != nullptr ? widened(from[p][c]) : 0.0f;
            PYCNN_UNROLL
            for (int oc = 0; oc < kOut; ++oc) sum[p][oc] += value * shared.weight[place][oc];
          }
        }
      }
    PYCNN_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      PYCNN_UNROLL
      for (int oc = 0; oc < kOut; ++oc) shared.sum[thread + p * kThreads][oc] = sum[p][oc];
    }
  }

  // Of `left` or a vector's elements from `begin` of the block's results on, pixel by pixel.
  PYCNN_BOTH void finish(const Shared& shared, std::int64_t first, int begin, int left) const {
    const int count = left < kVector<T> ? left : kVector<T>;
    auto c = static_cast<std::uint32_t>(begin);
    std::uint32_t pixel = channels.split(c);
    const std::int64_t from = first + pixel;
    const auto channel = static_cast<int>(c);
    const bool is_pixel = channel + count <= s.out_channels;  // of one pixel
    const bool one_residual = is_pixel || s.residual_pitch() == s.out_channels;
    const bool one_output = is_pixel || s.output_pitch() == s.out_channels;
    const T* const residual = static_cast<const T*>(epilogue.residual);
    float values[kVector<T>], added[kVector<T>] = {};
    if (residual != nullptr && one_residual)
      load(residual + from * s.residual_pitch() + channel, count, added);
    PYCNN_UNROLL
    for (int i = 0; i < kVector<T>; ++i) {
      values[i] = 0.0f;
      if (i >= count) continue;
      if (residual != nullptr && !one_residual)
        added[i] = widened(residual[(first + pixel) * s.residual_pitch() + c]);
      const float bias = epilogue.bias != nullptr ? epilogue.bias[c] : 0.0f;
      values[i] = activate(epilogue.curve, shared.sum[pixel][c] + bias + added[i]);
      if (!one_output) narrow(values[i], output[(first + pixel) * s.output_pitch() + c]);
      if (++c == static_cast<std::uint32_t>(s.out_channels)) {
        c = 0;
        ++pixel;
      }
    }
    if (one_output) store(output + from * s.output_pitch() + channel, count, values);
  }
};

template <class T, int kOut>
void launch_direct(DeviceQueue& queue, const ConvShape& shape, const DirectWeights& weights,
                   const void* input, const ConvEpilogue& epilogue, void* output) {
  const auto divider = [](int by) { return Divider(by > 0 ? by : 1); };
  const DirectConv<T, kOut> kernel{shape,
                                   epilogue,
                                   static_cast<const T*>(input),
                                   static_cast<const T*>(weights.data),
                                   static_cast<T*>(output),
                                   weights.channel_pitch,
                                   weights.row_pitch,
                                   weights.tap_pitch,
                                   divider(shape.out_width),
                                   divider(shape.out_height),
                                   divider(shape.out_channels)};
  launch(queue, kernel, kernel.blocks());
}

}  // namespace

bool conv2d_is_direct(const ConvShape& shape) {
  return shape.groups == 1 && shape.in_channels <= kMostDirectIn &&
         shape.out_channels <= kMostDirectOut && shape.window() <= kMostDirectWindow;
}

void conv2d_direct(DeviceQueue& queue, Image image, const ConvShape& shape, const void* input,
                   const DirectWeights& weights, const ConvEpilogue& epilogue, void* output) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    if (shape.out_channels <= kMostDirectOut / 2)
      launch_direct<T, kMostDirectOut / 2>(queue, shape, weights, input, epilogue, output);
    else
      launch_direct<T, kMostDirectOut>(queue, shape, weights, input, epilogue, output);
  });
}

}  // namespace pycnn::cuda
