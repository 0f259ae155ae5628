// The gradient reads the input twice. First every window finds its winners, one byte for each
// channel, and adds what its gradient gives to the sums of the batch norm: that is the gradient
// times one, or times the winner's distance from the mean, where the activation was open. Then
// every pixel gathers from the windows that hold it what the batch norm's gradient asks for.
#include "backends/cuda/batch_norm_gradient.h"
#include "backends/cuda/batch_norm_max_pool.h"
#include "backends/cuda/columns.h"
#include "backends/cuda/divider.h"
#include "backends/cuda/pool_windows.h"

namespace pycnn::cuda {
namespace {

// Of a vector of channels.
template <int Width>
struct NormChannels {
  float mean[Width], factor[Width], offset[Width];
};

// Of window (oh, ow), for `n` channels from the first of `image` on; and how far each winner's
// input is from the mean. Values are compared as they would have been stored.
template <class T, int Width>
struct NormWinners : BestTaps<Width> {
  float centered[Width] = {};

  PYCNN_BOTH NormWinners(const PoolShape& s, const NormChannels<Width>& norm, const Curve& curve,
                         const T* image, std::int64_t oh, std::int64_t ow, int n) {
    each_tap(s, oh, ow, [&](int here, std::int64_t place) {
      float x[Width];
      load(image + place, n, x);
      PYCNN_UNROLL
      for (int i = 0; i < Width; ++i) {
        const float distance = x[i] - norm.mean[i];
        // As batch_norm_apply adds a residual of zeros.
        const float y = normalised(distance, norm.factor[i], norm.offset[i]) + 0.0f;
        if (this->take(i, rounded<T>(activate(curve, y)), here)) centered[i] = distance;
      }
    });
  }
};

// Pixels of images of `columns` x `rows`, by their numbers.
struct PixelPlaces {
  WideDivider columns, rows;
  explicit PixelPlaces(const PoolAxis& v, const PoolAxis& h, bool of_output)
      : columns(most(1, of_output ? h.output : h.input)),
        rows(most(1, of_output ? v.output : v.input)) {}
  struct Place {
    std::int64_t n, h, w;
  };
  PYCNN_BOTH Place operator()(std::int64_t pixel) const {
    Place place{};
    place.w = pixel;
    place.h = columns.split(place.w);
    place.n = rows.split(place.h);
    return place;
  }
};

// function(channels, pixel, c) for the vectors of channels of all pixels. A thread reads what
// Function::Channels are once, for kPixels pixels.
template <int Width, class Function>
struct MapPixels {
  static constexpr int kThreads = 256, kPixels = 8;
  struct Shared {};
  struct Registers {};
  Function function;
  std::int64_t pixels, channels;
  int across;  // vectors of a pixel that a block has, a power of two

  static MapPixels of(const Function& function, std::int64_t pixels, std::int64_t channels) {
    constexpr int kMost = Width > 1 ? 8 : 32;
    MapPixels map{function, pixels, channels, 1};
    while (map.across < kMost && map.across * Width < channels) map.across *= 2;
    return map;
  }
  PYCNN_BOTH std::int64_t tiles() const {
    const std::int64_t width = std::int64_t{across} * Width;
    return (channels + width - 1) / width;
  }
  PYCNN_BOTH std::int64_t down() const { return kThreads / across; }
  PYCNN_BOTH std::int64_t blocks() const {
    const std::int64_t of_block = down() * kPixels;
    return (pixels + of_block - 1) / of_block * tiles();
  }

  PYCNN_BOTH void operator()(Block<MapPixels>& block) const {
    const std::int64_t first_channel = block.index() % tiles() * across * Width;
    const std::int64_t first_pixel = block.index() / tiles() * down() * kPixels;
    block.last([&](int thread, Registers&) {
      const std::int64_t c = first_channel + thread % across * Width;
      if (c >= channels) return;
      const typename Function::Channels of_channels(function, c);
      for (int i = 0; i < kPixels; ++i) {
        const std::int64_t pixel = first_pixel + thread / across + i * down();
        if (pixel < pixels) function(of_channels, pixel, c);
      }
    });
  }
};

template <class T, int Width>
struct NormMaxPool {
  PoolShape s;
  PixelPlaces places;
  PooledNorm norm;
  T* output;
  struct Channels : NormChannels<Width> {
    PYCNN_BOTH Channels(const NormMaxPool& f, std::int64_t c) {
      load_vector(f.norm.mean, c, this->mean);
      load_vector(f.norm.factor, c, this->factor);
      load_vector(f.norm.offset, c, this->offset);
    }
  };
  PYCNN_BOTH void operator()(const Channels& channels, std::int64_t pixel, std::int64_t c) const {
    const auto o = places(pixel);
    const T* image = static_cast<const T*>(norm.input) +
                     o.n * s.rows.input * s.columns.input * s.input_pitch + c;
    const NormWinners<T, Width> winners(s, channels, norm.curve, image, o.h, o.w, Width);
    store_output(output, OutputPlace(s, o.n, o.h, o.w, c), winners.value);
  }
};

// Of windows, whose winners it leaves in `taps`, pixel by pixel of the output.
template <class T>
struct WindowTerm {
  static constexpr int kSums = 2, kWidth = kVector<T>;
  PoolShape s;
  PixelPlaces places;
  GradientParams p;
  std::uint8_t* taps;
  struct Channels : NormChannels<kWidth> {
    PYCNN_BOTH Channels(const WindowTerm& term, std::int64_t c, int n) {
      load(term.p.mean + c, n, this->mean);
      load(term.p.factor + c, n, this->factor);
      load(term.p.offset + c, n, this->offset);
    }
  };
  PYCNN_BOTH void operator()(const Channels& channels, std::int64_t window, std::int64_t c, int n,
                             float (&values)[2][kWidth]) const {
    const auto o = places(window);
    const T* image =
        static_cast<const T*>(p.input) + o.n * s.rows.input * s.columns.input * s.input_pitch + c;
    const NormWinners<T, kWidth> winners(s, channels, p.curve, image, o.h, o.w, n);
    const OutputPlace place(s, o.n, o.h, o.w, c);
    const T* const g = static_cast<const T*>(p.grad_output);
    if (place.step == 1) {
      load(g + place.at, n, values[0]);
    } else {
      PYCNN_UNROLL
      for (int i = 0; i < kWidth; ++i)
        values[0][i] = i < n ? widened(g[place.at + i * place.step]) : 0.0f;
    }
    std::uint8_t* const to = taps + window * s.channels + c;
    Pack<std::uint8_t, kWidth> pack;
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      const float centered = winners.centered[i];
      values[0][i] = winners.tap[i] < 0 ? 0.0f
                                        : open_gradient(p.curve, centered, channels.factor[i],
                                                        channels.offset[i], values[0][i]);
      values[1][i] = values[0][i] * centered;
      pack.element[i] = winners.byte(i);
    }
    if (n == kWidth && is_one_access<std::uint8_t, kWidth>(to))
      *reinterpret_cast<Pack<std::uint8_t, kWidth>*>(to) = pack;
    else
      for (int i = 0; i < n; ++i) to[i] = pack.element[i];
  }
};

// Of the input's pixels, by the winners.
template <class T, int Width>
struct PooledInputGradient {
  PoolShape s;
  PixelPlaces places;
  GradientParams p;
  const std::uint8_t* taps;
  const float* a;
  const float* b;
  const float* c;
  struct Channels : NormChannels<Width> {
    float a[Width], b[Width], c[Width];
    PYCNN_BOTH Channels(const PooledInputGradient& f, std::int64_t channel) {
      load_vector(f.p.mean, channel, this->mean);
      load_vector(f.p.factor, channel, this->factor);
      load_vector(f.p.offset, channel, this->offset);
      load_vector(f.a, channel, a);
      load_vector(f.b, channel, b);
      load_vector(f.c, channel, c);
    }
  };
  PYCNN_BOTH void operator()(const Channels& channels, std::int64_t pixel,
                             std::int64_t channel) const {
    const auto i = places(pixel);
    float x[Width];
    load(static_cast<const T*>(p.input) + pixel * p.input_pitch + channel, Width, x);
    const Range v = windows_at(s.rows, i.h), h = windows_at(s.columns, i.w);
    float sum[Width] = {};
    for (std::int64_t oh = v.begin; oh < v.end; ++oh) {
      const std::int64_t kh = tap_at(s.rows, oh, i.h);
      if (kh < 0) continue;
      for (std::int64_t ow = h.begin; ow < h.end; ++ow) {
        const std::int64_t kw = tap_at(s.columns, ow, i.w);
        if (kw < 0) continue;
        const std::int64_t window = (i.n * s.rows.output + oh) * s.columns.output + ow;
        const auto winners = *reinterpret_cast<const Pack<std::uint8_t, Width>*>(
            taps + window * s.channels + channel);
        const int here = static_cast<int>(kh * s.columns.kernel + kw);
        float g[Width];
        load_output(static_cast<const T*>(p.grad_output), OutputPlace(s, i.n, oh, ow, channel), g);
        PYCNN_UNROLL
        for (int j = 0; j < Width; ++j) sum[j] += winners.element[j] == here ? g[j] : 0.0f;
      }
    }
    PYCNN_UNROLL
    for (int j = 0; j < Width; ++j) {
      const float centered = x[j] - channels.mean[j];
      const float open =
          open_gradient(p.curve, centered, channels.factor[j], channels.offset[j], sum[j]);
      x[j] = channels.a[j] * open + (channels.b[j] * centered + channels.c[j]);
    }
    store(static_cast<T*>(p.grad_input) + pixel * p.grad_input_pitch + channel, Width, x);
  }
};

std::int64_t windows_of(const PoolShape& s) { return s.images * s.rows.output * s.columns.output; }
std::int64_t pixels_of(const PoolShape& s) { return s.images * s.rows.input * s.columns.input; }

// Three coefficients of each channel, then the partial sums, then the taps.
std::int64_t floats_before_taps(const PoolShape& s) {
  const std::int64_t floats =
      4 * s.channels + column_scratch_bytes({1, windows_of(s), s.channels}, 2) /
                           static_cast<std::int64_t>(sizeof(float));
  return (floats + 3) / 4 * 4;
}

}  // namespace

void batch_norm_max_pool(DeviceQueue& queue, Image image, const PoolShape& shape,
                         const PooledNorm& norm, void* output) {
  with_vectors(image, shape.channels, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    const NormMaxPool<T, kWidth> pool{shape, PixelPlaces(shape.rows, shape.columns, true), norm,
                                      static_cast<T*>(output)};
    const auto map =
        MapPixels<kWidth, NormMaxPool<T, kWidth>>::of(pool, windows_of(shape), shape.channels);
    launch(queue, map, map.blocks());
  });
}

std::int64_t batch_norm_max_pool_grad_scratch_bytes(const PoolShape& shape) {
  return floats_before_taps(shape) * static_cast<std::int64_t>(sizeof(float)) +
         windows_of(shape) * shape.channels;
}

void batch_norm_max_pool_grad(DeviceQueue& queue, Image image, const PoolShape& shape,
                              const GradientParams& params, void* scratch) {
  auto* const a = static_cast<float*>(scratch);
  float* const b = a + shape.channels;
  float* const c = b + shape.channels;
  float* const partials = a + 4 * shape.channels;
  auto* const taps = reinterpret_cast<std::uint8_t*>(a + floats_before_taps(shape));
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_column_sums(
        queue, WindowTerm<T>{shape, PixelPlaces(shape.rows, shape.columns, true), params, taps},
        GradientFinish{params, a, b, c}, {1, windows_of(shape), shape.channels}, partials);
  });
  with_vectors(image, shape.channels, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    const PooledInputGradient<T, kWidth> gradient{
        shape, PixelPlaces(shape.rows, shape.columns, false), params, taps, a, b, c};
    const auto map = MapPixels<kWidth, PooledInputGradient<T, kWidth>>::of(
        gradient, pixels_of(shape), shape.channels);
    launch(queue, map, map.blocks());
  });
}

}  // namespace pycnn::cuda
