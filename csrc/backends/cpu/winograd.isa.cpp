#include "backends/cpu/winograd.h"

#include "backends/cpu/gemm_tile.isa.h"
#include "backends/cpu/take_lanes.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

// A tile's outputs and points say it all: the window has POINTS - TILE + 1 taps.

// ---- Along one axis

template <int POINTS>
PYCNN_INLINE void input_axis(const Vec* x, Vec* y, int step) {
  if constexpr (POINTS == 4) {
    y[0] = x[0] - x[2];
    y[step] = x[1] + x[2];
    y[2 * step] = x[2] - x[1];
    y[3 * step] = x[1] - x[3];
  } else {
    const Vec four = broadcast(4.0f), minus_five = broadcast(-5.0f);
    const Vec even = fma(broadcast(-4.0f), x[2], x[4]), odd = fma(broadcast(-4.0f), x[1], x[3]);
    const Vec near = x[4] - x[2], difference = x[3] - x[1], far = difference + difference;
    y[0] = fma(four, x[0], fma(minus_five, x[2], x[4]));
    y[step] = even + odd;
    y[2 * step] = even - odd;
    y[3 * step] = near + far;
    y[4 * step] = near - far;
    y[5 * step] = fma(four, x[1], fma(minus_five, x[3], x[5]));
  }
}

template <int TILE, int POINTS>
PYCNN_INLINE void output_axis(const Vec* x, Vec* y, int step) {
  const Vec sum = x[1] + x[2], difference = x[1] - x[2];
  if constexpr (POINTS == 4) {
    y[0] = x[0] + sum;
    y[step] = difference - x[3];
  } else {
    const Vec far_sum = x[3] + x[4], far_difference = x[3] - x[4];
    y[0] = (x[0] + sum) + far_sum;
    y[step] = fma(broadcast(2.0f), far_difference, difference);
    if constexpr (TILE == 2) {
      y[step] = y[step] + x[5];
    } else {
      y[2 * step] = fma(broadcast(4.0f), far_sum, sum);
      y[3 * step] = fma(broadcast(8.0f), far_difference, difference) + x[5];
    }
  }
}

template <int TILE, int POINTS>
PYCNN_INLINE void weight_axis(const Vec* x, Vec* y, int step) {
  const Vec ends = x[0] + x[2];
  if constexpr (POINTS == 4) {
    const Vec half = broadcast(0.5f);
    y[0] = x[0];
    y[step] = half * (ends + x[1]);
    y[2 * step] = half * (ends - x[1]);
    y[3 * step] = x[2];
  } else {
    // Thirds last: they are the only numbers here that float32 does not hold.
    const Vec sixth = broadcast(1.0f / 6), twenty_fourth = broadcast(1.0f / 24);
    y[0] = broadcast(0.25f) * x[0];
    if constexpr (TILE == 2) {
      const Vec even = ends + x[4], odd = x[1] + x[3];
      const Vec far_even = fma(broadcast(16.0f), x[4], fma(broadcast(4.0f), x[2], x[0]));
      const Vec far_odd = fma(broadcast(8.0f), x[3], x[1] + x[1]);
      y[step] = -(sixth * (even + odd));
      y[2 * step] = -(sixth * (even - odd));
      y[3 * step] = twenty_fourth * (far_even + far_odd);
      y[4 * step] = twenty_fourth * (far_even - far_odd);
      y[5 * step] = x[4];
    } else {
      const Vec wide = fma(broadcast(4.0f), x[2], x[0]);
      y[step] = -(sixth * (ends + x[1]));
      y[2 * step] = -(sixth * (ends - x[1]));
      y[3 * step] = twenty_fourth * fma(broadcast(2.0f), x[1], wide);
      y[4 * step] = twenty_fourth * fma(broadcast(-2.0f), x[1], wide);
      y[5 * step] = x[2];
    }
  }
}

// The transpose of output_axis.
template <int TILE, int POINTS>
PYCNN_INLINE void gradient_axis(const Vec* x, Vec* y, int step) {
  if constexpr (TILE == 2) {
    y[0] = x[0];
    y[step] = x[0] + x[1];
    y[2 * step] = x[0] - x[1];
    if constexpr (POINTS == 4) {
      y[3 * step] = -x[1];
    } else {
      y[3 * step] = fma(broadcast(2.0f), x[1], x[0]);
      y[4 * step] = fma(broadcast(-2.0f), x[1], x[0]);
      y[5 * step] = x[1];
    }
  } else {
    const Vec even = x[0] + x[2], odd = x[1] + x[3];
    const Vec far_even = fma(broadcast(4.0f), x[2], x[0]);
    const Vec far_odd = fma(broadcast(8.0f), x[3], x[1] + x[1]);
    y[0] = x[0];
    y[step] = even + odd;
    y[2 * step] = even - odd;
    y[3 * step] = far_even + far_odd;
    y[4 * step] = far_even - far_odd;
    y[5 * step] = x[3];
  }
}

// The transpose of weight_axis.
template <int TILE, int POINTS>
PYCNN_INLINE void sums_axis(const Vec* x, Vec* y, int step) {
  const Vec sum = x[1] + x[2], difference = x[1] - x[2];
  if constexpr (POINTS == 4) {
    const Vec half = broadcast(0.5f);
    y[0] = fma(half, sum, x[0]);
    y[step] = half * difference;
    y[2 * step] = fma(half, sum, x[3]);
  } else {
    // Thirds last, as above.
    const Vec far_sum = x[3] + x[4], far_difference = x[3] - x[4];
    const Vec small = broadcast(1.0f / 24) * fma(broadcast(-4.0f), sum, far_sum);
    y[0] = fma(broadcast(0.25f), x[0], small);
    y[step] = broadcast(1.0f / 12) * fma(broadcast(-2.0f), difference, far_difference);
    y[2 * step] = broadcast(1.0f / 6) * (far_sum - sum);
    if constexpr (TILE == 4) {
      y[2 * step] = y[2 * step] + x[5];
    } else {
      const Vec sixth = broadcast(1.0f / 6);
      y[3 * step] = sixth * fma(broadcast(2.0f), far_difference, -difference);
      y[4 * step] = sixth * fma(broadcast(4.0f), far_sum, -sum) + x[5];
    }
  }
}

// ---- Tiles

struct Range {
  Index begin, end;
  bool has(Index i) const { return i >= begin && i < end; }
};

// Pixels of a tile that lie in the image, along one axis.
PYCNN_INLINE Range inside(Index first, Index size, Index points) {
  const Index end = size - first;
  return {first < 0 ? -first : 0, end < points ? end : points};
}

struct Window {
  const float* first;
  Index row_pitch, pixel_pitch;
  Range rows, columns;
};

// What becomes of a tile of an image: SIDE x SIDE pixels to POINTS x POINTS points.
template <int POINTS>
struct OfInput {
  static constexpr int kSide = POINTS, kPoints = POINTS;
  PYCNN_INLINE void axis(const Vec* x, Vec* y, int step) { input_axis<POINTS>(x, y, step); }
};
template <int TILE, int POINTS>
struct OfGradient {
  static constexpr int kSide = TILE, kPoints = POINTS;
  PYCNN_INLINE void axis(const Vec* x, Vec* y, int step) {
    gradient_axis<TILE, POINTS>(x, y, step);
  }
};

// `lanes` channels. With kWhole all pixels are inside and all lanes are channels.
template <class Transform, bool kWhole>
PYCNN_INLINE void transform_pixels(const Window& window, int lanes, float* points, Index plane) {
  constexpr int kSide = Transform::kSide, kPoints = Transform::kPoints;
  Vec half[kPoints * kSide];
  for (int j = 0; j < kSide; ++j) {
    Vec x[kSide];
    const float* p = window.first + j * window.pixel_pitch;
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i, p += window.row_pitch) {
      if constexpr (kWhole)
        x[i] = load(p);
      else
        x[i] = window.rows.has(i) && window.columns.has(j) ? load_partial(p, lanes) : zero();
    }
    Transform::axis(x, half + j, kSide);
  }
  for (int i = 0; i < kPoints; ++i) {
    Vec y[kPoints];
    Transform::axis(half + i * kSide, y, 1);
#pragma GCC unroll 6
    for (int j = 0; j < kPoints; ++j, points += plane) store(points, y[j]);
  }
}

template <class Transform>
void image_tile(const WinogradInput& job) {
  constexpr Index kSide = Transform::kSide;
  Window window;
  window.row_pitch = job.columns * job.pixel_pitch, window.pixel_pitch = job.pixel_pitch;
  window.first = job.image + job.row * window.row_pitch + job.column * window.pixel_pitch;
  window.rows = inside(job.row, job.rows, kSide);
  window.columns = inside(job.column, job.columns, kSide);
  const bool whole = window.rows.begin == 0 && window.columns.begin == 0 &&
                     window.rows.end == kSide && window.columns.end == kSide;
  float* block = job.points;
  for (Index c = 0; c < job.channels; block += job.block_pitch)
    for (int v = 0; v < 2 && c < job.channels; ++v, c += kLanes, window.first += kLanes) {
      float* points = block + v * kLanes;
      if (whole && c + kLanes <= job.channels)
        transform_pixels<Transform, true>(window, kLanes, points, job.plane);
      else
        transform_pixels<Transform, false>(window, lanes_of(static_cast<int>(job.channels - c), 0),
                                           points, job.plane);
    }
}

template <int TILE, int POINTS, bool kWhole>
void transform_output(const WinogradOutput& job) {
  constexpr int kPoints = POINTS;
  for (Index c = 0; c < job.channels; c += kLanes) {
    const int lanes = lanes_of(static_cast<int>(job.channels - c), 0);
    Vec half[TILE * kPoints];
    const float* from = job.points + c;
    for (int j = 0; j < kPoints; ++j) {
      Vec x[kPoints];
#pragma GCC unroll 6
      for (int i = 0; i < kPoints; ++i) x[i] = load(from + (i * kPoints + j) * job.plane);
      output_axis<TILE, POINTS>(x, half + j, kPoints);
    }
    const Vec bias = job.bias ? load_partial(job.bias + c, lanes) : zero();
    for (Index i = 0; i < (kWhole ? TILE : job.rows); ++i) {
      Vec sum[1][TILE];
      output_axis<TILE, POINTS>(half + i * kPoints, sum[0], 1);
      float* const out = job.output + i * job.row_pitch + c;
      const int columns = kWhole ? TILE : static_cast<int>(job.columns);
#pragma GCC unroll 4
      for (int j = 0; j < TILE; ++j) {
        sum[0][j] = sum[0][j] + bias;
        if (!job.residual || j >= columns) continue;
        const float* other = job.residual + (out - job.output) + j * job.pixel_pitch;
        sum[0][j] = sum[0][j] + (kWhole ? load(other) : load_partial(other, lanes));
      }
      activate(job.activation, job.slope, sum);
      if (job.mask)
#pragma GCC unroll 4
        for (int j = 0; j < TILE; ++j) {
          if (j >= columns) break;
          const float* other = job.mask + (out - job.output) + j * job.pixel_pitch;
          sum[0][j] = masked(kWhole ? load(other) : load_partial(other, lanes), sum[0][j]);
        }
#pragma GCC unroll 4
      for (int j = 0; j < TILE; ++j) {
        if (j >= columns) break;
        if constexpr (kWhole)
          store(out + j * job.pixel_pitch, sum[0][j]);
        else
          store_partial(out + j * job.pixel_pitch, sum[0][j], lanes);
      }
    }
  }
}

template <int TILE, int POINTS>
void output_tile(const WinogradOutput& job) {
  const bool whole = job.rows == TILE && job.columns == TILE && job.channels % kLanes == 0;
  return whole ? transform_output<TILE, POINTS, true>(job)
               : transform_output<TILE, POINTS, false>(job);
}

// ---- Weights

// Taps of one read channel and a vector of output channels, one `pitch` floats after the other, to
// points.
template <int TILE, int POINTS, bool kWhole>
PYCNN_INLINE void transform_taps(const float* first, Index pitch, int lanes, float* to,
                                 Index plane) {
  constexpr int kPoints = POINTS, kSide = POINTS - TILE + 1;
  Vec half[kPoints * kSide];
  for (int j = 0; j < kSide; ++j) {
    Vec x[kSide];
#pragma GCC unroll 5
    for (int i = 0; i < kSide; ++i) {
      const float* tap = first + (kSide * i + j) * pitch;
      x[i] = kWhole ? load(tap) : load_partial(tap, lanes);
    }
    weight_axis<TILE, POINTS>(x, half + j, kSide);
  }
  for (int i = 0; i < kPoints; ++i) {
    Vec y[kPoints];
    weight_axis<TILE, POINTS>(half + kSide * i, y, 1);
#pragma GCC unroll 6
    for (int j = 0; j < kPoints; ++j, to += plane) store(to, y[j]);
  }
}

// A square of read channels, which follow one another, and output channels, all taps; those that do
// not exist are zeros. to[tap][read channel][lane].
PYCNN_INLINE void transpose_taps(const float* first, const WinogradWeights& job, int taps,
                                 int reads, int lanes, float* to) {
  for (int tap = 0; tap < taps; ++tap, to += kLanes * kLanes) {
    const float* from = first + (job.flipped ? taps - 1 - tap : tap) * job.tap_pitch;
    Vec x[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      x[i] = i < lanes ? load_partial(from + i * job.write_pitch, reads) : zero();
    transpose(x);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) store(to + i * kLanes, x[i]);
  }
}

template <int TILE, int POINTS>
void weight_block(const WinogradWeights& job) {
  constexpr int kSide = POINTS - TILE + 1, kTaps = kSide * kSide;
  auto lanes_at = [&](Index c) {
    return job.valid > c ? lanes_of(static_cast<int>(job.valid - c), 0) : 0;
  };
  if (job.write_pitch == 1) {  // vectors as they are
    const Index last = job.flipped ? (kTaps - 1) * job.tap_pitch : 0;
    const Index pitch = job.flipped ? -job.tap_pitch : job.tap_pitch;
    for (Index k = 0; k < job.read_channels; ++k)
      for (Index c = 0; c < job.width; c += kLanes)
        transform_taps<TILE, POINTS, false>(job.weight + k * job.read_pitch + c + last, pitch,
                                            lanes_at(c), job.points + k * job.width + c, job.plane);
    return;
  }
  // Squares two by two, so that neighbours in the result are written together.
  constexpr int kSquare = kTaps * kLanes * kLanes;
  alignas(64) float squares[2 * kSquare];
  for (Index k = 0; k < job.read_channels; k += kLanes) {
    const int reads = lanes_of(static_cast<int>(job.read_channels - k), 0);
    for (Index c = 0; c < job.width; c += 2 * kLanes) {
      const int vectors = job.width - c > kLanes ? 2 : 1;
      for (int v = 0; v < vectors; ++v)
        transpose_taps(job.weight + k + (c + v * kLanes) * job.write_pitch, job, kTaps, reads,
                       lanes_at(c + v * kLanes), squares + v * kSquare);
      float* to = job.points + k * job.width + c;
      for (int i = 0; i < reads; ++i, to += job.width)
        for (int v = 0; v < vectors; ++v)
          transform_taps<TILE, POINTS, true>(squares + v * kSquare + i * kLanes, kLanes * kLanes,
                                             kLanes, to + v * kLanes, job.plane);
    }
  }
}

template <int TILE, int POINTS>
void weight_sums(const WinogradSums& job) {
  constexpr int kPoints = POINTS, kSide = POINTS - TILE + 1;
  const float* block = job.points;
  for (Index c = 0; c < job.read_channels; block += job.block_pitch)
    for (int v = 0; v < 2 && c < job.read_channels; ++v, c += kLanes) {
      const int lanes = lanes_of(static_cast<int>(job.read_channels - c), 0);
      Vec half[kSide * kPoints];
      for (int j = 0; j < kPoints; ++j) {
        Vec x[kPoints];
#pragma GCC unroll 6
        for (int i = 0; i < kPoints; ++i)
          x[i] = load(block + (i * kPoints + j) * job.plane + v * kLanes);
        sums_axis<TILE, POINTS>(x, half + j, kPoints);
      }
      float* to = job.weight + c;
      for (int i = 0; i < kSide; ++i) {
        Vec y[kSide];
        sums_axis<TILE, POINTS>(half + i * kPoints, y, 1);
#pragma GCC unroll 5
        for (int j = 0; j < kSide; ++j, to += job.tap_pitch) store_partial(to, y[j], lanes);
      }
    }
}

template <int TILE, int POINTS>
constexpr WinogradTransforms kTransforms = {
    image_tile<OfInput<POINTS>>, image_tile<OfGradient<TILE, POINTS>>, weight_sums<TILE, POINTS>,
    output_tile<TILE, POINTS>, weight_block<TILE, POINTS>};

}  // namespace

const WinogradSet kWinograd = {&kTransforms<2, 4>, &kTransforms<4, 6>, &kTransforms<2, 6>};

}  // namespace pycnn::cpu::PYCNN_ISA
