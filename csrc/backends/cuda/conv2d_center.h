#pragma once
#include "backends/cuda/conv2d.h"
#include "backends/cuda/divider.h"

// A value of a convolution's result for each channel, without bias, in the middle of the first
// image (measure_center). Nothing runs beside it, so what counts is how long one thread takes.
namespace pycnn::cuda {

// Threads that share a channel read kAtOnce vectors of the window each before they add one. The
// shape alone says which, so that the sum has one order.
template <class T, int Width>
struct CenterValue {
  static constexpr int kThreads = 256, kAtOnce = 4, kLeastLanes = 8;
  using Vector = Pack<T, Width>;
  struct Shared {
    float sum[kThreads];
  };
  struct Registers {};
  const T* input;
  const T* weight;
  float* center;
  int out_channels, in_group, window, vectors;  // vectors of the window
  int top, left, height, width, pitch, dilation_y, dilation_x;
  int lanes, lane_bits;  // threads of a channel, a power of two
  bool aligned;          // vectors are one access
  Divider of_tap, kernel_width, out_group;

  static CenterValue of(const ConvShape& s, const T* input, const T* weight, float* center) {
    CenterValue value{};
    value.input = input;
    value.weight = weight;
    value.center = center;
    value.out_channels = s.out_channels;
    value.in_group = s.in_group();
    value.window = s.window();
    value.vectors = s.window() / Width;
    value.top = s.out_height / 2 * s.stride_y - s.top;
    value.left = s.out_width / 2 * s.stride_x - s.left;
    value.height = s.height;
    value.width = s.width;
    value.pitch = s.input_pitch();
    value.dilation_y = s.dilation_y;
    value.dilation_x = s.dilation_x;
    value.aligned = Width == 1 || (is_one_access<T, Width>(input) &&
                                   is_one_access<T, Width>(weight) && s.input_pitch() % Width == 0);
    value.lanes = kLeastLanes;
    while (value.lanes < kThreads && value.lanes * kAtOnce < value.vectors) value.lanes *= 2;
    while (1 << value.lane_bits < value.lanes) ++value.lane_bits;
    const auto divider = [](int by) { return Divider(by > 0 ? by : 1); };
    value.of_tap = divider(s.in_group() / Width);
    value.kernel_width = divider(s.kernel_width);
    value.out_group = divider(s.out_group());
    return value;
  }

  PYCNN_BOTH std::int64_t blocks() const {
    const std::int64_t channels = kThreads >> lane_bits;
    return (out_channels + channels - 1) / channels;
  }
  PYCNN_BOTH void operator()(Block<CenterValue>& block) const {
    const auto first = static_cast<int>(block.index()) * (kThreads >> lane_bits);
    float* const shared = block.shared().sum;
    block.each([&](int thread, Registers&) {
      const int lane = thread & (lanes - 1), channel = first + (thread >> lane_bits);
      float sum = 0.0f;
      if (channel < out_channels)
        sum = aligned ? add<true>(channel, lane) : add<false>(channel, lane);
      shared[thread] = sum;
    });
    for (int half = lanes / 2; half > 0; half /= 2)
      block.each([&](int thread, Registers&) {
        if ((thread & (lanes - 1)) < half) shared[thread] += shared[thread + half];
      });
    block.last([&](int thread, Registers&) {
      const int channel = first + (thread >> lane_bits);
      if ((thread & (lanes - 1)) == 0 && channel < out_channels) center[channel] = shared[thread];
    });
  }

 private:
  template <bool kOneAccess>
  PYCNN_BOTH float add(int channel, int lane) const {
    const T* const weights = weight + std::int64_t{channel} * window;
    const T* const image =
        input + std::int64_t{out_group.quotient(static_cast<std::uint32_t>(channel))} * in_group;
    float sum = 0.0f;
    for (int i = lane; i < vectors; i += kAtOnce * lanes) {
      Vector x[kAtOnce], w[kAtOnce];
      PYCNN_UNROLL
      for (int k = 0; k < kAtOnce; ++k) {
        auto part = static_cast<std::uint32_t>(i + k * lanes);
        const bool is_there = static_cast<int>(part) < vectors;
        const T* const of_weight = weights + std::int64_t{part} * Width;
        std::uint32_t tap = of_tap.split(part);
        const auto ky = static_cast<int>(kernel_width.split(tap));
        const int y = top + ky * dilation_y, x_at = left + static_cast<int>(tap) * dilation_x;
        const bool inside = is_there && static_cast<unsigned>(y) < static_cast<unsigned>(height) &&
                            static_cast<unsigned>(x_at) < static_cast<unsigned>(width);
        x[k] = w[k] = Vector{};
        if (!inside) continue;
        x[k] = load_pack<Width, kOneAccess>(
            image + (std::int64_t{y} * width + x_at) * pitch + std::int64_t{part} * Width, Width);
        w[k] = load_pack<Width, kOneAccess>(of_weight, Width);
      }
      PYCNN_UNROLL
      for (int k = 0; k < kAtOnce; ++k) {
        PYCNN_UNROLL
        for (int j = 0; j < Width; ++j) sum += widened(x[k].element[j]) * widened(w[k].element[j]);
      }
    }
    return sum;
  }
};

}  // namespace pycnn::cuda
