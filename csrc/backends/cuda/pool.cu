// A thread has a vector of adjacent channels of one pixel, or one channel where these do not divide
// into vectors.
#include <cmath>

#include "backends/cuda/columns.h"
#include "backends/cuda/divider.h"
#include "backends/cuda/map.h"
#include "backends/cuda/pool_windows.h"

namespace pycnn::cuda {
namespace {

// Cells of window o that count towards a mean (ops/window.h: what lies beyond the padding never
// counts).
PYCNN_BOTH std::int64_t mean_cells(const PoolAxis& axis, std::int64_t o, bool count_padding) {
  const std::int64_t start = o * axis.stride - axis.before;
  const std::int64_t end = least(start + axis.kernel, axis.input + axis.after);
  return most(1, count_padding ? end - start : least(end, axis.input) - most(start, 0));
}

// Channels from `c` on of pixel (h, w) of image n, which is number `pixel` of all.
struct Spot {
  std::int64_t n, h, w, c, pixel;
};
// Of the vectors of images.
struct Spots {
  WideDivider vectors, columns, rows;
  int width;

  Spots(std::int64_t rows_, std::int64_t columns_, std::int64_t channels, int width_)
      : vectors(most(1, channels / width_)),
        columns(most(1, columns_)),
        rows(most(1, rows_)),
        width(width_) {}
  static Spots of_input(const PoolShape& s, int width) {
    return {s.rows.input, s.columns.input, s.channels, width};
  }
  static Spots of_output(const PoolShape& s, int width) {
    return {s.rows.output, s.columns.output, s.channels, width};
  }

  PYCNN_BOTH Spot operator()(std::int64_t at) const {
    Spot spot{};
    spot.pixel = vectors.split(at);
    spot.c = at * width;
    spot.w = spot.pixel;
    spot.h = columns.split(spot.w);
    spot.n = rows.split(spot.h);
    return spot;
  }
};

template <class T, int Width>
PYCNN_BOTH void load_all(const T* from, float (&to)[Width]) {
  load(from, Width, to);
}

// Stores the gradient of the input at a spot.
template <class T, int Width>
PYCNN_BOTH void store_gradient(const PoolShape& s, const PoolPassed& passing, const Spot& spot,
                               float (&gradient)[Width], T* grad_input) {
  if (passing.activated != nullptr) {
    float y[Width];
    load(static_cast<const T*>(passing.activated) + spot.pixel * passing.pitch + spot.c, Width, y);
    for (int i = 0; i < Width; ++i)
      gradient[i] = passed(passing.curve, y[i], rounded<T>(gradient[i]));
  }
  store(grad_input + spot.pixel * s.grad_pitch + spot.c, Width, gradient);
}

// Of window (oh, ow), for the channels from the first of `image` on.
template <class T, int Width>
struct Winners : BestTaps<Width> {
  PYCNN_BOTH Winners(const PoolShape& s, const T* image, std::int64_t oh, std::int64_t ow) {
    each_tap(s, oh, ow, [&](int here, std::int64_t place) {
      float x[Width];
      load_all(image + place, x);
      for (int i = 0; i < Width; ++i) this->take(i, x[i], here);
    });
  }
};

template <class T, int Width>
struct MaxPool {
  static constexpr int kWidth = 1;
  PoolShape s;
  Spots spots;
  const T* input;
  T* output;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const Spot o = spots(at);
    const T* image = input + o.n * s.rows.input * s.columns.input * s.input_pitch + o.c;
    const Winners<T, Width> winners(s, image, o.h, o.w);
    store_output(output, OutputPlace(s, o.n, o.h, o.w, o.c), winners.value);
  }
};

template <class T, int Width>
struct MaxPoolGrad {
  static constexpr int kWidth = 1;
  PoolShape s;
  Spots spots;
  const T* input;
  const T* grad_output;
  PoolPassed passing;
  T* grad_input;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const Spot i = spots(at);
    const T* image = input + i.n * s.rows.input * s.columns.input * s.input_pitch + i.c;
    const Range v = windows_at(s.rows, i.h), h = windows_at(s.columns, i.w);
    float sum[Width] = {};
    for (std::int64_t oh = v.begin; oh < v.end; ++oh) {
      const std::int64_t kh = tap_at(s.rows, oh, i.h);
      if (kh < 0) continue;
      for (std::int64_t ow = h.begin; ow < h.end; ++ow) {
        const std::int64_t kw = tap_at(s.columns, ow, i.w);
        if (kw < 0) continue;
        const Winners<T, Width> winners(s, image, oh, ow);
        float g[Width];
        load_output(grad_output, OutputPlace(s, i.n, oh, ow, i.c), g);
        for (int j = 0; j < Width; ++j)
          if (winners.tap[j] == kh * s.columns.kernel + kw) sum[j] += g[j];
      }
    }
    store_gradient(s, passing, i, sum, grad_input);
  }
};

// Where windows overlap, each one's winners are found once: a byte for each of its channels.
template <class T, int Width>
struct MaxTaps {
  static constexpr int kWidth = 1;
  PoolShape s;
  Spots spots;
  const T* input;
  std::uint8_t* taps;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const Spot o = spots(at);
    const T* image = input + o.n * s.rows.input * s.columns.input * s.input_pitch + o.c;
    const Winners<T, Width> winners(s, image, o.h, o.w);
    Pack<std::uint8_t, Width> pack;
    for (int i = 0; i < Width; ++i) pack.element[i] = winners.byte(i);
    *reinterpret_cast<Pack<std::uint8_t, Width>*>(taps + at * Width) = pack;
  }
};

template <class T, int Width>
struct MaxPoolGradByTaps {
  static constexpr int kWidth = 1;
  PoolShape s;
  Spots spots;
  const std::uint8_t* taps;
  const T* grad_output;
  PoolPassed passing;
  T* grad_input;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const Spot i = spots(at);
    const Range v = windows_at(s.rows, i.h), h = windows_at(s.columns, i.w);
    float sum[Width] = {};
    for (std::int64_t oh = v.begin; oh < v.end; ++oh) {
      const std::int64_t kh = tap_at(s.rows, oh, i.h);
      if (kh < 0) continue;
      for (std::int64_t ow = h.begin; ow < h.end; ++ow) {
        const std::int64_t kw = tap_at(s.columns, ow, i.w);
        if (kw < 0) continue;
        const std::int64_t pixel = (i.n * s.rows.output + oh) * s.columns.output + ow;
        const auto winners =
            *reinterpret_cast<const Pack<std::uint8_t, Width>*>(taps + pixel * s.channels + i.c);
        const int here = static_cast<int>(kh * s.columns.kernel + kw);
        float g[Width];
        load_output(grad_output, OutputPlace(s, i.n, oh, ow, i.c), g);
        for (int j = 0; j < Width; ++j) sum[j] += winners.element[j] == here ? g[j] : 0.0f;
      }
    }
    store_gradient(s, passing, i, sum, grad_input);
  }
};

bool overlap(const PoolAxis& axis) { return (axis.kernel - 1) * axis.dilation >= axis.stride; }

template <class T, int Width>
struct AvgPool {
  static constexpr int kWidth = 1;
  PoolShape s;
  Spots spots;
  bool count_padding;
  const T* input;
  T* output;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const Spot o = spots(at);
    const T* image = input + o.n * s.rows.input * s.columns.input * s.input_pitch + o.c;
    float sum[Width] = {};
    each_tap(s, o.h, o.w, [&](int, std::int64_t place) {
      float x[Width];
      load_all(image + place, x);
      for (int j = 0; j < Width; ++j) sum[j] += x[j];
    });
    const auto cells = static_cast<float>(mean_cells(s.rows, o.h, count_padding) *
                                          mean_cells(s.columns, o.w, count_padding));
    for (float& value : sum) value /= cells;
    store_output(output, OutputPlace(s, o.n, o.h, o.w, o.c), sum);
  }
};

template <class T, int Width>
struct AvgPoolGrad {
  static constexpr int kWidth = 1;
  PoolShape s;
  Spots spots;
  bool count_padding;
  const T* grad_output;
  PoolPassed passing;
  T* grad_input;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const Spot i = spots(at);
    const Range v = windows_at(s.rows, i.h), h = windows_at(s.columns, i.w);
    float sum[Width] = {};
    for (std::int64_t oh = v.begin; oh < v.end; ++oh) {
      for (std::int64_t ow = h.begin; ow < h.end; ++ow) {
        const auto cells = static_cast<float>(mean_cells(s.rows, oh, count_padding) *
                                              mean_cells(s.columns, ow, count_padding));
        float g[Width];
        load_output(grad_output, OutputPlace(s, i.n, oh, ow, i.c), g);
        for (int j = 0; j < Width; ++j) sum[j] += g[j] / cells;
      }
    }
    store_gradient(s, passing, i, sum, grad_input);
  }
};

PYCNN_BOTH Range even_window(const PoolAxis& axis, std::int64_t o) {
  return {o * axis.input / axis.output, ((o + 1) * axis.input + axis.output - 1) / axis.output};
}
// Windows that hold pixel i: window o does when o * input / output < i + 1 and
// (o + 1) * input / output > i.
PYCNN_BOTH Range even_windows_at(const PoolAxis& axis, std::int64_t i) {
  return {i * axis.output / axis.input, ((i + 1) * axis.output + axis.input - 1) / axis.input};
}

template <class T, int Width>
struct AdaptiveAvgPool {
  static constexpr int kWidth = 1;
  PoolShape s;
  Spots spots;
  const T* input;
  T* output;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const Spot o = spots(at);
    const T* image = input + o.n * s.rows.input * s.columns.input * s.input_pitch + o.c;
    const Range v = even_window(s.rows, o.h), h = even_window(s.columns, o.w);
    float sum[Width] = {};
    for (std::int64_t ih = v.begin; ih < v.end; ++ih) {
      for (std::int64_t iw = h.begin; iw < h.end; ++iw) {
        float x[Width];
        load_all(image + (ih * s.columns.input + iw) * s.input_pitch, x);
        for (int j = 0; j < Width; ++j) sum[j] += x[j];
      }
    }
    const auto cells = static_cast<float>((v.end - v.begin) * (h.end - h.begin));
    for (float& value : sum) value /= cells;
    store(output + o.pixel * s.output_pitch + o.c, Width, sum);
  }
};

template <class T, int Width>
struct AdaptiveAvgPoolGrad {
  static constexpr int kWidth = 1;
  PoolShape s;
  Spots spots;
  const T* grad_output;
  T* grad_input;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const Spot i = spots(at);
    const Range v = even_windows_at(s.rows, i.h), h = even_windows_at(s.columns, i.w);
    float sum[Width] = {};
    for (std::int64_t oh = v.begin; oh < v.end; ++oh) {
      for (std::int64_t ow = h.begin; ow < h.end; ++ow) {
        const Range rows = even_window(s.rows, oh), columns = even_window(s.columns, ow);
        const auto cells =
            static_cast<float>((rows.end - rows.begin) * (columns.end - columns.begin));
        float g[Width];
        load_all(
            grad_output + ((i.n * s.rows.output + oh) * s.columns.output + ow) * s.channels + i.c,
            g);
        for (int j = 0; j < Width; ++j) sum[j] += g[j] / cells;
      }
    }
    store(grad_input + i.pixel * s.channels + i.c, Width, sum);
  }
};

template <class T>
struct PixelMean {
  T* output;
  std::int64_t pixels, channels;
  PYCNN_BOTH void operator()(std::int64_t n, std::int64_t c, const double (&sums)[1]) const {
    narrow(static_cast<float>(sums[0] / static_cast<double>(pixels)), output[n * channels + c]);
  }
};

template <class T, int Width>
struct SpreadMean {
  static constexpr int kWidth = 1;
  Spots spots;
  const T* grad_output;
  T* grad_input;
  std::int64_t pixels, channels;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const Spot i = spots(at);
    float g[Width];
    load_all(grad_output + i.n * channels + i.c, g);
    for (float& value : g) value /= static_cast<float>(pixels);
    store(grad_input + at * Width, Width, g);
  }
};

// A block has some vectors of channels of one image, each of its lanes every so many pixels.
template <class T, int Width>
struct GlobalMax {
  static constexpr int kThreads = 256;
  struct Best {
    float value[Width];
    std::int64_t pixel[Width];  // -1: there is none

    PYCNN_BOTH void take(int i, float x, std::int64_t at) {
      const bool wins =
          pixel[i] < 0 || beats(x, value[i]) || (at < pixel[i] && !beats(value[i], x));
      if (!wins) return;
      value[i] = x;
      pixel[i] = at;
    }
  };
  struct Shared {
    Best best[kThreads];
  };
  struct Registers {};
  const T* input;
  const T* grad_output;  // null: the maximum is wanted
  T* output;
  std::int64_t images, pixels, channels;
  int across;  // vectors of a block, a power of two

  static GlobalMax of(const void* input, const void* grad_output, void* output, std::int64_t images,
                      std::int64_t pixels, std::int64_t channels) {
    constexpr int kMost = Width > 1 ? 8 : 32;
    GlobalMax kernel{static_cast<const T*>(input),
                     static_cast<const T*>(grad_output),
                     static_cast<T*>(output),
                     images,
                     pixels,
                     channels,
                     1};
    while (kernel.across < kMost && kernel.across * Width < channels) kernel.across *= 2;
    return kernel;
  }
  PYCNN_BOTH std::int64_t tiles() const {
    const std::int64_t width = std::int64_t{across} * Width;
    return (channels + width - 1) / width;
  }
  PYCNN_BOTH std::int64_t blocks() const { return images * tiles(); }

  PYCNN_BOTH void operator()(Block<GlobalMax>& block) const {
    const std::int64_t image = block.index() / tiles();
    const std::int64_t first_channel = block.index() % tiles() * across * Width;
    const std::int64_t first = image * pixels * channels;
    const int lanes = kThreads / across;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      const std::int64_t c = first_channel + std::int64_t{thread % across} * Width;
      Best best;
      PYCNN_UNROLL
      for (int i = 0; i < Width; ++i) {
        best.value[i] = -INFINITY;
        best.pixel[i] = -1;
      }
      for (std::int64_t pixel = thread / across; c < channels && pixel < pixels; pixel += lanes) {
        float x[Width];
        load_all(input + first + pixel * channels + c, x);
        PYCNN_UNROLL
        for (int i = 0; i < Width; ++i) best.take(i, x[i], pixel);
      }
      shared.best[thread] = best;
    });
    for (int half = kThreads / 2; half >= across; half /= 2)
      block.each([&](int thread, Registers&) {
        if (thread >= half) return;
        const Best& other = shared.best[thread + half];
        for (int i = 0; i < Width; ++i)
          if (other.pixel[i] >= 0) shared.best[thread].take(i, other.value[i], other.pixel[i]);
      });
    block.last([&](int thread, Registers&) {
      const std::int64_t c = first_channel + std::int64_t{thread % across} * Width;
      if (c >= channels) return;
      const Best& best = shared.best[thread % across];
      if (grad_output == nullptr) {
        if (thread < across) store(output + image * channels + c, Width, best.value);
        return;
      }
      float g[Width];
      load_all(grad_output + image * channels + c, g);
      for (std::int64_t pixel = thread / across; pixel < pixels; pixel += lanes) {
        float result[Width];
        PYCNN_UNROLL
        for (int i = 0; i < Width; ++i) result[i] = pixel == best.pixel[i] ? g[i] : 0.0f;
        store(output + first + pixel * channels + c, Width, result);
      }
    });
  }
};

template <class T, int Width>
void launch_global_max(DeviceQueue& queue, const GlobalMax<T, Width>& kernel) {
  launch(queue, kernel, kernel.blocks());
}

std::int64_t input_count(const PoolShape& s) {
  return s.images * s.rows.input * s.columns.input * s.channels;
}
std::int64_t output_count(const PoolShape& s) {
  return s.images * s.rows.output * s.columns.output * s.channels;
}

}  // namespace

void max_pool(DeviceQueue& queue, Image image, const PoolShape& shape, const void* input,
              void* output) {
  with_vectors(image, shape.channels, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue,
               MaxPool<T, kWidth>{shape, Spots::of_output(shape, kWidth),
                                  static_cast<const T*>(input), static_cast<T*>(output)},
               output_count(shape) / kWidth);
  });
}

std::int64_t max_pool_grad_scratch_bytes(const PoolShape& shape) {
  const bool many = shape.rows.kernel * shape.columns.kernel > kNoTap;
  const bool apart = !overlap(shape.rows) && !overlap(shape.columns);
  return many || apart ? 0 : output_count(shape);
}

void max_pool_grad(DeviceQueue& queue, Image image, const PoolShape& shape, const void* input,
                   const void* grad_output, const PoolPassed& passed, void* grad_input,
                   void* scratch) {
  auto* const taps = static_cast<std::uint8_t*>(scratch);
  const bool by_taps = max_pool_grad_scratch_bytes(shape) > 0;
  with_vectors(image, shape.channels, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    const Spots spots = Spots::of_input(shape, kWidth);
    const auto* const x = static_cast<const T*>(input);
    const auto* const g = static_cast<const T*>(grad_output);
    auto* const result = static_cast<T*>(grad_input);
    const std::int64_t count = input_count(shape) / kWidth;
    if (!by_taps)
      return launch_map(queue, MaxPoolGrad<T, kWidth>{shape, spots, x, g, passed, result}, count);
    launch_map(queue, MaxTaps<T, kWidth>{shape, Spots::of_output(shape, kWidth), x, taps},
               output_count(shape) / kWidth);
    launch_map(queue, MaxPoolGradByTaps<T, kWidth>{shape, spots, taps, g, passed, result}, count);
  });
}

void avg_pool(DeviceQueue& queue, Image image, const PoolShape& shape, bool count_padding,
              const void* input, void* output) {
  with_vectors(image, shape.channels, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue,
               AvgPool<T, kWidth>{shape, Spots::of_output(shape, kWidth), count_padding,
                                  static_cast<const T*>(input), static_cast<T*>(output)},
               output_count(shape) / kWidth);
  });
}

void avg_pool_grad(DeviceQueue& queue, Image image, const PoolShape& shape, bool count_padding,
                   const void* grad_output, const PoolPassed& passed, void* grad_input) {
  with_vectors(image, shape.channels, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue,
               AvgPoolGrad<T, kWidth>{shape, Spots::of_input(shape, kWidth), count_padding,
                                      static_cast<const T*>(grad_output), passed,
                                      static_cast<T*>(grad_input)},
               input_count(shape) / kWidth);
  });
}

void adaptive_avg_pool(DeviceQueue& queue, Image image, const PoolShape& shape, const void* input,
                       void* output) {
  with_vectors(image, shape.channels, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue,
               AdaptiveAvgPool<T, kWidth>{shape, Spots::of_output(shape, kWidth),
                                          static_cast<const T*>(input), static_cast<T*>(output)},
               output_count(shape) / kWidth);
  });
}

void adaptive_avg_pool_grad(DeviceQueue& queue, Image image, const PoolShape& shape,
                            const void* grad_output, void* grad_input) {
  with_vectors(image, shape.channels, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue,
               AdaptiveAvgPoolGrad<T, kWidth>{shape, Spots::of_input(shape, kWidth),
                                              static_cast<const T*>(grad_output),
                                              static_cast<T*>(grad_input)},
               input_count(shape) / kWidth);
  });
}

std::int64_t global_avg_pool_scratch_bytes(std::int64_t images, std::int64_t pixels,
                                           std::int64_t channels) {
  return column_scratch_bytes({images, pixels, channels}, 1);
}

void global_avg_pool(DeviceQueue& queue, Image image, std::int64_t images, std::int64_t pixels,
                     std::int64_t channels, std::int64_t pitch, const void* input, void* output,
                     void* scratch) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_column_sums(queue, PlainTerm<T>(static_cast<const T*>(input), pitch),
                       PixelMean<T>{static_cast<T*>(output), pixels, channels},
                       {images, pixels, channels}, static_cast<float*>(scratch));
  });
}

void global_avg_pool_grad(DeviceQueue& queue, Image image, std::int64_t images, std::int64_t pixels,
                          std::int64_t channels, const void* grad_output, void* grad_input) {
  with_vectors(image, channels, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue,
               SpreadMean<T, kWidth>{{1, pixels, channels, kWidth},
                                     static_cast<const T*>(grad_output),
                                     static_cast<T*>(grad_input),
                                     pixels,
                                     channels},
               images * pixels * channels / kWidth);
  });
}

void global_max_pool(DeviceQueue& queue, Image image, std::int64_t images, std::int64_t pixels,
                     std::int64_t channels, const void* input, void* output) {
  with_vectors(image, channels, [&](auto type, auto width) {
    using Kernel = GlobalMax<decltype(type), decltype(width)::value>;
    launch_global_max(queue, Kernel::of(input, nullptr, output, images, pixels, channels));
  });
}

void global_max_pool_grad(DeviceQueue& queue, Image image, std::int64_t images, std::int64_t pixels,
                          std::int64_t channels, const void* input, const void* grad_output,
                          void* grad_input) {
  with_vectors(image, channels, [&](auto type, auto width) {
    using Kernel = GlobalMax<decltype(type), decltype(width)::value>;
    launch_global_max(queue, Kernel::of(input, grad_output, grad_input, images, pixels, channels));
  });
}

}  // namespace pycnn::cuda
