#pragma once
#include <cmath>

#include "backends/cuda/pool.h"

// Windows and the pixels that they hold, for the kernels of pooling.
namespace pycnn::cuda {

struct Range {
  std::int64_t begin, end;
};

PYCNN_BOTH std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
PYCNN_BOTH std::int64_t most(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// The taps of window o that lie in the image.
PYCNN_BOTH Range taps_of(const PoolAxis& axis, std::int64_t o) {
  const std::int64_t start = o * axis.stride - axis.before;
  const std::int64_t first = start < 0 ? (axis.dilation - 1 - start) / axis.dilation : 0;
  const std::int64_t end =
      start < axis.input ? (axis.input - start + axis.dilation - 1) / axis.dilation : first;
  return {first, least(axis.kernel, end)};
}

// The tap by which window o holds pixel i, or -1.
PYCNN_BOTH std::int64_t tap_at(const PoolAxis& axis, std::int64_t o, std::int64_t i) {
  const std::int64_t distance = i - (o * axis.stride - axis.before);
  if (distance < 0 || distance % axis.dilation != 0) return -1;
  const std::int64_t tap = distance / axis.dilation;
  return tap < axis.kernel ? tap : -1;
}

// visit(tap, place) for the taps of window (oh, ow) that lie in the image, row by row: the tap's
// number, and where its pixel begins, from the image's first on.
template <class Visit>
PYCNN_BOTH void each_tap(const PoolShape& s, std::int64_t oh, std::int64_t ow, const Visit& visit) {
  const Range v = taps_of(s.rows, oh), h = taps_of(s.columns, ow);
  for (std::int64_t kh = v.begin; kh < v.end; ++kh) {
    for (std::int64_t kw = h.begin; kw < h.end; ++kw) {
      const std::int64_t ih = oh * s.rows.stride - s.rows.before + kh * s.rows.dilation;
      const std::int64_t iw = ow * s.columns.stride - s.columns.before + kw * s.columns.dilation;
      visit(static_cast<int>(kh * s.columns.kernel + kw),
            (ih * s.columns.input + iw) * s.input_pitch);
    }
  }
}

// Windows that may hold pixel i.
PYCNN_BOTH Range windows_at(const PoolAxis& axis, std::int64_t i) {
  const std::int64_t reach = (axis.kernel - 1) * axis.dilation;
  const std::int64_t below = i + axis.before - reach;
  return {below <= 0 ? 0 : (below + axis.stride - 1) / axis.stride,
          least(axis.output, (i + axis.before) / axis.stride + 1)};
}

// Where the channel of an output's pixel (h, w) of image n lies that is `c` and, of the next ones,
// how far apart they are.
struct OutputPlace {
  std::int64_t at, step;
  PYCNN_BOTH OutputPlace(const PoolShape& s, std::int64_t n, std::int64_t h, std::int64_t w,
                         std::int64_t c) {
    const std::int64_t pixels = s.rows.output * s.columns.output;
    const std::int64_t pixel = h * s.columns.output + w;
    at = s.planar_output ? (n * s.channels + c) * pixels + pixel
                         : (n * pixels + pixel) * s.output_pitch + c;
    step = s.planar_output ? pixels : 1;
  }
};
template <class T, int Width>
PYCNN_BOTH void load_output(const T* from, const OutputPlace& place, float (&to)[Width]) {
  if (place.step == 1) return load(from + place.at, Width, to);
  for (int i = 0; i < Width; ++i) to[i] = widened(from[place.at + i * place.step]);
}
template <class T, int Width>
PYCNN_BOTH void store_output(T* to, const OutputPlace& place, const float (&from)[Width]) {
  if (place.step == 1) return store(to + place.at, Width, from);
  for (int i = 0; i < Width; ++i) narrow(from[i], to[place.at + i * place.step]);
}

// NaN beats everything, and the first of equals stays.
PYCNN_BOTH bool beats(float x, float best) { return x > best || (is_nan(x) && !is_nan(best)); }

// What stands for no tap where one is a byte.
constexpr int kNoTap = 255;

// The tap that wins a window for each of some channels (-1: there is none), and its value.
template <int Width>
struct BestTaps {
  float value[Width];
  int tap[Width];

  PYCNN_BOTH BestTaps() {
    PYCNN_UNROLL
    for (int i = 0; i < Width; ++i) {
      value[i] = -INFINITY;
      tap[i] = -1;
    }
  }
  // Whether x, of that tap, is the best of channel i so far.
  PYCNN_BOTH bool take(int i, float x, int here) {
    if (tap[i] >= 0 && !beats(x, value[i])) return false;
    value[i] = x;
    tap[i] = here;
    return true;
  }
  PYCNN_BOTH std::uint8_t byte(int i) const {
    return static_cast<std::uint8_t>(tap[i] < 0 ? kNoTap : tap[i]);
  }
};

}  // namespace pycnn::cuda
