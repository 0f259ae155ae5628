// Statistics take two passes, as the reference does: the mean, then the squares of the distances
// from its float32. What that lost of the mean is put back in float64.
#include <cmath>

#include "backends/cuda/batch_norm.h"
#include "backends/cuda/columns.h"
#include "backends/cuda/map.h"

namespace pycnn::cuda {
namespace {

ColumnShape shape_of(std::int64_t rows, std::int64_t channels) { return {1, rows, channels}; }

// Distances from the first row: sums of values far from zero would lose their low bits.
template <class T>
struct MeanTerm {
  static constexpr int kSums = 1;
  const T* input;
  std::int64_t pitch;
  PYCNN_BOTH void operator()(std::int64_t row, std::int64_t c, float (&values)[1]) const {
    values[0] = widened(input[row * pitch + c]) - widened(input[c]);
  }
};

template <class T>
struct MeanFinish {
  const T* input;
  std::int64_t rows;
  double* mean;
  PYCNN_BOTH void operator()(std::int64_t, std::int64_t c, const double (&sums)[1]) const {
    mean[c] = rows > 0
                  ? static_cast<double>(widened(input[c])) + sums[0] / static_cast<double>(rows)
                  : 0.0;
  }
};

template <class T>
struct VarianceTerm {
  static constexpr int kSums = 2;
  const T* input;
  const double* mean;
  std::int64_t pitch;
  PYCNN_BOTH void operator()(std::int64_t row, std::int64_t c, float (&values)[2]) const {
    const float distance = widened(input[row * pitch + c]) - static_cast<float>(mean[c]);
    values[0] = distance;
    values[1] = distance * distance;
  }
};

struct StatisticsFinish {
  StatisticsParams p;
  const double* mean;
  PYCNN_BOTH void operator()(std::int64_t, std::int64_t c, const double (&sums)[2]) const {
    finish(c, mean[c], sums);
  }
  PYCNN_BOTH void finish(std::int64_t c, double exact, const double (&sums)[2]) const {
    const auto rows = static_cast<double>(p.rows);
    const double momentum = p.rows == 0 ? 0.0 : p.momentum;
    double variance = p.rows == 0 ? 0.0 : (sums[1] - sums[0] * sums[0] / rows) / rows;
    if (variance < 0.0) variance = 0.0;
    const double unbiased = p.rows > 1 ? variance * (rows / (rows - 1.0)) : variance;
    const double inv_std = 1.0 / sqrt(variance + p.eps);
    const double factor = inv_std * static_cast<double>(p.scale[c]);
    const double lost = exact - static_cast<double>(static_cast<float>(exact));
    p.batch_mean[c] = static_cast<float>(exact);
    p.batch_inv_std[c] = static_cast<float>(inv_std);
    p.new_running_mean[c] = static_cast<float>(
        (1.0 - momentum) * static_cast<double>(p.running_mean[c]) + momentum * exact);
    p.new_running_var[c] = static_cast<float>(
        (1.0 - momentum) * static_cast<double>(p.running_var[c]) + momentum * unbiased);
    p.factor[c] = static_cast<float>(factor);
    p.offset[c] = static_cast<float>(static_cast<double>(p.shift[c]) - lost * factor);
  }
};

// By moments or sums that are known.
struct KnownStatistics {
  static constexpr int kWidth = 1;
  StatisticsParams p;
  PYCNN_BOTH void operator()(std::int64_t c, int) const {
    const auto high = static_cast<double>(p.moments[c]);
    const double mean = high + static_cast<double>(p.moments[p.moments_pitch + c]);
    const auto rows = static_cast<double>(p.rows);
    const double sums[2] = {0.0, static_cast<double>(p.moments[2 * p.moments_pitch + c]) * rows};
    StatisticsFinish{p, nullptr}.finish(c, mean, sums);
  }
};

PYCNN_BOTH float applied(const ApplyParams& p, std::int64_t c, float x, float residual) {
  return activate(p.curve, (x - p.mean[c]) * p.factor[c] + p.offset[c] + residual);
}

template <class T>
struct Apply {
  static constexpr int kWidth = kVector<T>;
  ApplyParams p;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth], r[kWidth] = {};
    load(static_cast<const T*>(p.input) + begin, n, x);
    if (p.residual != nullptr) load(static_cast<const T*>(p.residual) + begin, n, r);
    std::int64_t c = begin % p.channels;
    for (int i = 0; i < n && i < kWidth; ++i) {
      x[i] = applied(p, c, x[i], r[i]);
      c = c + 1 == p.channels ? 0 : c + 1;
    }
    store(static_cast<T*>(p.output) + begin, n, x);
  }
};

// Vector `at` of rows that lie apart.
template <int Width>
struct RowVector {
  std::int64_t row, channel;
  PYCNN_BOTH RowVector(std::int64_t at, std::int64_t channels)
      : row(at / (channels / Width)), channel(at % (channels / Width) * Width) {}
};

template <class T, int Width>
struct ApplyApart {
  static constexpr int kWidth = 1;
  ApplyParams p;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const RowVector<Width> v(at, p.channels);
    float x[Width], r[Width] = {};
    load(static_cast<const T*>(p.input) + v.row * p.input_pitch + v.channel, Width, x);
    if (p.residual != nullptr)
      load(static_cast<const T*>(p.residual) + v.row * p.residual_pitch + v.channel, Width, r);
    for (int i = 0; i < Width; ++i) x[i] = applied(p, v.channel + i, x[i], r[i]);
    store(static_cast<T*>(p.output) + v.row * p.output_pitch + v.channel, Width, x);
  }
};

// What comes back through the activation, at one element.
PYCNN_BOTH float open_gradient(const GradientParams& p, std::int64_t c, float centered, float g) {
  if (p.curve.kind == CurveKind::kIdentity) return g;
  return passed(p.curve, activate(p.curve, centered * p.factor[c] + p.offset[c]), g);
}

template <class T>
struct GradientTerm {
  static constexpr int kSums = 2;
  GradientParams p;
  PYCNN_BOTH void operator()(std::int64_t row, std::int64_t c, float (&values)[2]) const {
    const float x = widened(static_cast<const T*>(p.input)[row * p.input_pitch + c]);
    const float g = widened(static_cast<const T*>(p.grad_output)[row * p.grad_output_pitch + c]);
    const float centered = x - p.mean[c];
    values[0] = open_gradient(p, c, centered, g);
    values[1] = values[0] * centered;
  }
};

// grad_input = a * g + b * (x - mean) + c
struct GradientFinish {
  GradientParams p;
  float* a;
  float* b;
  float* c;
  PYCNN_BOTH void operator()(std::int64_t, std::int64_t at, const double (&sums)[2]) const {
    const auto inv_std = static_cast<double>(p.inv_std[at]), rows = static_cast<double>(p.rows);
    const double factor = inv_std * static_cast<double>(p.scale[at]);
    p.grad_shift[at] = static_cast<float>(sums[0]);
    p.grad_scale[at] = static_cast<float>(sums[1] * inv_std);
    a[at] = static_cast<float>(factor);
    const bool through = p.through_statistics && p.rows > 0;
    b[at] = through ? static_cast<float>(-factor * inv_std * inv_std * sums[1] / rows) : 0.0f;
    c[at] = through ? static_cast<float>(-factor * sums[0] / rows) : 0.0f;
  }
};

struct KnownGradient {
  static constexpr int kWidth = 1;
  GradientFinish finish;
  PYCNN_BOTH void operator()(std::int64_t c, int) const {
    const float* const known = finish.p.sums;
    const double sums[2] = {static_cast<double>(known[c]),
                            static_cast<double>(known[finish.p.channels + c])};
    finish(0, c, sums);
  }
};

struct Coefficients {
  const float* a;
  const float* b;
  const float* c;
  PYCNN_BOTH float gradient(const GradientParams& p, std::int64_t channel, float x, float g) const {
    const float centered = x - p.mean[channel];
    const float result = a[channel] * open_gradient(p, channel, centered, g);
    return p.through_statistics ? result + (b[channel] * centered + c[channel]) : result;
  }
};

template <class T>
struct InputGradient {
  static constexpr int kWidth = kVector<T>;
  GradientParams p;
  Coefficients coefficients;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth], g[kWidth];
    load(static_cast<const T*>(p.input) + begin, n, x);
    load(static_cast<const T*>(p.grad_output) + begin, n, g);
    std::int64_t channel = begin % p.channels;
    for (int i = 0; i < n && i < kWidth; ++i) {
      g[i] = coefficients.gradient(p, channel, x[i], g[i]);
      channel = channel + 1 == p.channels ? 0 : channel + 1;
    }
    store(static_cast<T*>(p.grad_input) + begin, n, g);
  }
};

template <class T, int Width>
struct InputGradientApart {
  static constexpr int kWidth = 1;
  GradientParams p;
  Coefficients coefficients;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const RowVector<Width> v(at, p.channels);
    float x[Width], g[Width];
    load(static_cast<const T*>(p.input) + v.row * p.input_pitch + v.channel, Width, x);
    load(static_cast<const T*>(p.grad_output) + v.row * p.grad_output_pitch + v.channel, Width, g);
    for (int i = 0; i < Width; ++i) g[i] = coefficients.gradient(p, v.channel + i, x[i], g[i]);
    store(static_cast<T*>(p.grad_input) + v.row * p.grad_input_pitch + v.channel, Width, g);
  }
};

struct InferenceFactors {
  static constexpr int kWidth = 1;
  const float* scale;
  const float* var;
  double eps;
  float* inv_std;
  float* factor;
  PYCNN_BOTH void operator()(std::int64_t c, int) const {
    const double inverse = 1.0 / sqrt(static_cast<double>(var[c]) + eps);
    if (inv_std != nullptr) inv_std[c] = static_cast<float>(inverse);
    if (factor != nullptr) factor[c] = static_cast<float>(static_cast<double>(scale[c]) * inverse);
  }
};

struct Fold {
  static constexpr int kWidth = 1;
  FoldParams p;
  PYCNN_BOTH double factor(std::int64_t oc) const {
    return static_cast<double>(p.scale[oc]) / sqrt(static_cast<double>(p.running_var[oc]) + p.eps);
  }
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const std::int64_t weights = p.channels * p.per_channel;
    if (at < weights) {
      p.folded_weight[at] =
          static_cast<float>(static_cast<double>(p.weight[at]) * factor(at / p.per_channel));
      return;
    }
    const std::int64_t oc = at - weights;
    const double bias = p.bias != nullptr ? static_cast<double>(p.bias[oc]) : 0.0;
    p.folded_bias[oc] =
        static_cast<float>((bias - static_cast<double>(p.running_mean[oc])) * factor(oc) +
                           static_cast<double>(p.shift[oc]));
  }
};

}  // namespace

std::int64_t batch_norm_scratch_bytes(std::int64_t rows, std::int64_t channels) {
  // Partial sums, then the mean in float64 or three coefficients.
  return channels * 2 * static_cast<std::int64_t>(sizeof(double)) +
         column_scratch_bytes(shape_of(rows, channels), 2);
}

void batch_norm_statistics(DeviceQueue& queue, Image image, const StatisticsParams& params,
                           void* scratch) {
  const ColumnShape shape = shape_of(params.rows, params.channels);
  if (params.moments != nullptr) return launch_map(queue, KnownStatistics{params}, params.channels);
  auto* const mean = static_cast<double*>(scratch);
  auto* const partials = reinterpret_cast<float*>(mean + 2 * params.channels);
  with_image(image, [&](auto type) {
    using T = decltype(type);
    const auto* input = static_cast<const T*>(params.input);
    launch_column_sums(queue, MeanTerm<T>{input, params.input_pitch},
                       MeanFinish<T>{input, params.rows, mean}, shape, partials);
    launch_column_sums(queue, VarianceTerm<T>{input, mean, params.input_pitch},
                       StatisticsFinish{params, mean}, shape, partials);
  });
}

void batch_norm_apply(DeviceQueue& queue, Image image, const ApplyParams& params) {
  const std::int64_t count = params.rows * params.channels;
  const bool follow_one_another =
      params.input_pitch == params.channels && params.output_pitch == params.channels &&
      (params.residual == nullptr || params.residual_pitch == params.channels);
  if (follow_one_another)
    return with_image(image,
                      [&](auto type) { launch_map(queue, Apply<decltype(type)>{params}, count); });
  with_vectors(image, params.channels, [&](auto type, auto width) {
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue, ApplyApart<decltype(type), kWidth>{params}, count / kWidth);
  });
}

void batch_norm_gradient(DeviceQueue& queue, Image image, const GradientParams& params,
                         void* scratch) {
  const ColumnShape shape = shape_of(params.rows, params.channels);
  auto* const a = static_cast<float*>(scratch);
  float* const b = a + params.channels;
  float* const c = b + params.channels;
  float* const partials = a + 4 * params.channels;
  with_image(image, [&](auto type) {
    using T = decltype(type);
    const GradientFinish finish{params, a, b, c};
    if (params.sums != nullptr)
      launch_map(queue, KnownGradient{finish}, params.channels);
    else
      launch_column_sums(queue, GradientTerm<T>{params}, finish, shape, partials);
  });
  const Coefficients coefficients{a, b, c};
  const std::int64_t count = params.rows * params.channels;
  const bool follow_one_another = params.input_pitch == params.channels &&
                                  params.grad_output_pitch == params.channels &&
                                  params.grad_input_pitch == params.channels;
  if (follow_one_another)
    return with_image(image, [&](auto type) {
      launch_map(queue, InputGradient<decltype(type)>{params, coefficients}, count);
    });
  with_vectors(image, params.channels, [&](auto type, auto width) {
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue, InputGradientApart<decltype(type), kWidth>{params, coefficients},
               count / kWidth);
  });
}

void inference_factors(DeviceQueue& queue, const float* scale, const float* var, double eps,
                       float* inv_std, float* factor, std::int64_t channels) {
  launch_map(queue, InferenceFactors{scale, var, eps, inv_std, factor}, channels);
}

void fold_batch_norm(DeviceQueue& queue, const FoldParams& params) {
  launch_map(queue, Fold{params}, params.channels * (params.per_channel + 1));
}

}  // namespace pycnn::cuda
