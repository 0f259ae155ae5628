#pragma once
#include "backends/cuda/conv2d.h"

// What convolutions and batch norms share of the sums of a result (conv2d_measure.cu).
namespace pycnn::cuda {

// Of a tile and channel: a, b and center.
constexpr int kMeasured = 3;

// What a thread adds up: kVector channels of some pixels.
template <class T>
struct Measured {
  // What distances are from: for moments a value of the tile, for sums the batch norm's mean.
  float center[kVector<T>];
  float a[kVector<T>], b[kVector<T>];
  float factor[kVector<T>], offset[kVector<T>];  // for sums through a curve

  PYCNN_BOTH void clear() {
    PYCNN_UNROLL
    for (int i = 0; i < kVector<T>; ++i) center[i] = a[i] = b[i] = factor[i] = offset[i] = 0.0f;
  }

  PYCNN_BOTH void read_norm(const Measure& measure, std::int64_t channel, int count) {
    PYCNN_UNROLL
    for (int i = 0; i < kVector<T>; ++i) {
      if (i >= count) continue;
      center[i] = measure.mean[channel + i];
      if (measure.curve.kind == CurveKind::kIdentity) continue;
      factor[i] = measure.factor[channel + i];
      offset[i] = measure.offset[channel + i];
    }
  }

  // Of the same channels, `values` as they are stored.
  PYCNN_BOTH void add_moments(const float (&values)[kVector<T>]) {
    PYCNN_UNROLL
    for (int i = 0; i < kVector<T>; ++i) {
      const float distance = values[i] - center[i];
      a[i] += distance;
      b[i] += distance * distance;
    }
  }
  // And `x` of the batch norm's input.
  PYCNN_BOTH void add_sums(const Curve& curve, const float (&values)[kVector<T>],
                           const float (&x)[kVector<T>]) {
    PYCNN_UNROLL
    for (int i = 0; i < kVector<T>; ++i) {
      const float centered = x[i] - center[i];
      float g = values[i];
      if (curve.kind != CurveKind::kIdentity)
        g = passed(curve, activate(curve, normalised(centered, factor[i], offset[i])), g);
      a[i] += g;
      b[i] += g * centered;
    }
  }

  // Of `pixel` from `channel` on.
  PYCNN_BOTH void take(const Measure& measure, std::int64_t pixel, std::int64_t channel, int count,
                       const float (&values)[kVector<T>]) {
    if (measure.kind == MeasureKind::kMoments) return add_moments(values);
    float x[kVector<T>];
    load(static_cast<const T*>(measure.normed) + pixel * measure.normed_pitch + channel, count, x);
    add_sums(measure.curve, values, x);
  }
};

struct MeasureShape {
  std::int64_t tiles, tile_rows, rows, channels;  // rows of a tile: for moments
};

std::int64_t measure_scratch_bytes(std::int64_t tiles, std::int64_t channels);
// (tile, kMeasured, channels) within that scratch.
float* measure_partials(void* scratch, std::int64_t tiles, std::int64_t channels);
void finish_measure(DeviceQueue& queue, const Measure& measure, const MeasureShape& shape,
                    void* scratch);

// The same of a result (rows, channels) that is there, in one pass over it.
std::int64_t pass_tiles(std::int64_t rows);
void measure_pass(DeviceQueue& queue, Image image, const Measure& measure, const void* result,
                  std::int64_t rows, std::int64_t channels, void* scratch);
// Leaves what finish_measure finishes for a convolution that adds up distances from a center
// itself: a value of its result for each channel, in the middle of the first image where no border
// is near. `weight` is of the images' type.
void measure_center(DeviceQueue& queue, Image image, const ConvShape& shape, const void* input,
                    const void* weight, float* center);
// For sums (MeasureKind::kSums), of a gradient that is finished first: as by
// conv2d_gradient_epilogue before that pass, to the bit.
void finish_and_sum_pass(DeviceQueue& queue, Image image, const ConvEpilogue& epilogue,
                         const Measure& measure, void* result, std::int64_t rows,
                         std::int64_t channels, void* scratch);

}  // namespace pycnn::cuda
