#include "backends/cpu/winograd.h"

#include "backends/cpu/gemm_tile.isa.h"
#include "backends/cpu/take_lanes.isa.h"
#include "backends/cpu/winograd_axes.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

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
