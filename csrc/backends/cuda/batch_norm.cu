// Statistics take two passes, as the reference does: the mean, then the squares of the distances
// from its float32. What that lost of the mean is put back in float64.
#include <cmath>

#include "backends/cuda/batch_norm_gradient.h"
#include "backends/cuda/columns.h"
#include "backends/cuda/map.h"

namespace pycnn::cuda {
namespace {

ColumnShape shape_of(std::int64_t rows, std::int64_t channels) { return {1, rows, channels}; }

// Distances from the first row: sums of values far from zero would lose their low bits.
template <class T>
struct MeanTerm : PlainTerm<T> {
  using PlainTerm<T>::PlainTerm, PlainTerm<T>::kWidth;
  using Row = typename PlainTerm<T>::Row;
  struct Channels {
    float first[kWidth];
    PYCNN_BOTH Channels(const MeanTerm& term, std::int64_t c, int n) {
      load(term.input + c, n, first);
    }
  };
  PYCNN_BOTH void operator()(const Channels& channels, const Curve&, const Row& row,
                             float (&values)[1][kWidth]) const {
    widen(row, values[0]);
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) values[0][i] -= channels.first[i];
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
struct VarianceTerm : PlainTerm<T> {
  static constexpr int kSums = 2;
  using PlainTerm<T>::kWidth;
  using Row = typename PlainTerm<T>::Row;
  const double* mean;
  VarianceTerm(const T* from, std::int64_t step, const double* known)
      : PlainTerm<T>(from, step), mean(known) {}
  struct Channels {
    float mean[kWidth];
    PYCNN_BOTH Channels(const VarianceTerm& term, std::int64_t c, int n) {
      PYCNN_UNROLL
      for (int i = 0; i < kWidth; ++i)
        mean[i] = i < n ? static_cast<float>(term.mean[c + i]) : 0.0f;
    }
  };
  PYCNN_BOTH void operator()(const Channels& channels, const Curve&, const Row& row,
                             float (&values)[2][kWidth]) const {
    widen(row, values[0]);
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      values[0][i] -= channels.mean[i];
      values[1][i] = values[0][i] * values[0][i];
    }
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

// output = Function of two inputs, element by element, where channels have numbers of their own. A
// thread reads those of its vector of channels once, for kRows rows, and kAtOnce rows of the inputs
// before it writes one. Blocks come from the last row to the first: what the kernel before this one
// made last is in the cache yet, and what the next one reads first will be.
struct RowTensors {
  const void* a;
  const void* b;  // null: zeros
  void* output;
  std::int64_t a_pitch, b_pitch, output_pitch, rows, channels;
  std::uint8_t* signs = nullptr;  // of the output, where a thread has 8 channels; null: none
};
template <class T, int Width, class Function>
struct MapRows {
  static constexpr int kThreads = 256, kRows = 8, kAtOnce = Function::kAtOnce;
  struct Shared {};
  struct Registers {};
  RowTensors t;
  Function function;
  int across;  // vectors of a row that a block has, a power of two

  static MapRows of(const RowTensors& tensors, const Function& function) {
    constexpr int kMost = Width > 1 ? 8 : 32;
    MapRows map{tensors, function, 1};
    while (map.across < kMost && map.across * Width < tensors.channels) map.across *= 2;
    return map;
  }
  PYCNN_BOTH std::int64_t columns() const {
    const std::int64_t width = std::int64_t{across} * Width;
    return (t.channels + width - 1) / width;
  }
  PYCNN_BOTH std::int64_t down() const { return kThreads / across; }
  PYCNN_BOTH std::int64_t blocks() const {
    const std::int64_t rows = down() * kRows;
    return (t.rows + rows - 1) / rows * columns();
  }

  PYCNN_BOTH void operator()(Block<MapRows>& block) const {
    const std::int64_t index = blocks() - 1 - block.index();
    const std::int64_t first_channel = index % columns() * across * Width;
    const std::int64_t first_row = index / columns() * down() * kRows;
    block.last([&](int thread, Registers&) {
      const std::int64_t c = first_channel + thread % across * Width;
      if (c >= t.channels) return;
      const typename Function::template Channels<Width> channels(function, c);
      const T* const a = static_cast<const T*>(t.a) + c;
      const T* const b = static_cast<const T*>(t.b) + c;
      T* const output = static_cast<T*>(t.output) + c;
      for (int group = 0; group < kRows; group += kAtOnce) {
        const std::int64_t row = first_row + thread / across + group * down();
        float x[kAtOnce][Width], y[kAtOnce][Width] = {};
        PYCNN_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          const std::int64_t at = row + i * down();
          if (at >= t.rows) continue;
          load_vector(a, at * t.a_pitch, x[i]);
          if (t.b != nullptr) load_vector(b, at * t.b_pitch, y[i]);
        }
        PYCNN_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          const std::int64_t at = row + i * down();
          if (at >= t.rows) continue;
          PYCNN_UNROLL
          for (int j = 0; j < Width; ++j) x[i][j] = channels(function, j, x[i][j], y[i][j]);
          store_vector(output, at * t.output_pitch, x[i]);
          if constexpr (Function::kGivesSigns && Width == kSigns)
            if (t.signs != nullptr) t.signs[(at * t.channels + c) / kSigns] = signs_of<T>(x[i]);
        }
      }
    });
  }
};

template <class Function>
void map_rows(DeviceQueue& queue, Image image, const RowTensors& tensors,
              const Function& function) {
  const auto run = [&](auto type, auto width) {
    const auto map =
        MapRows<decltype(type), decltype(width)::value, Function>::of(tensors, function);
    launch(queue, map, map.blocks());
  };
  if constexpr (Function::kGivesSigns)
    if (tensors.signs != nullptr)
      return with_image(image,
                        [&](auto type) { run(type, std::integral_constant<int, kSigns>{}); });
  with_vectors(image, tensors.channels, run);
}

// Of an input and a residual.
struct Apply {
  static constexpr bool kGivesSigns = true;
  static constexpr int kAtOnce = 4;
  const float* mean;
  const float* factor;
  const float* offset;
  Curve curve;
  template <int Width>
  struct Channels {
    float mean[Width], factor[Width], offset[Width];
    PYCNN_BOTH Channels(const Apply& f, std::int64_t c) {
      load_vector(f.mean, c, mean);
      load_vector(f.factor, c, factor);
      load_vector(f.offset, c, offset);
    }
    PYCNN_BOTH float normed(int i, float x) const {
      return normalised(x - mean[i], factor[i], offset[i]);
    }
    PYCNN_BOTH float operator()(const Apply& f, int i, float x, float residual) const {
      return activate(f.curve, normed(i, x) + residual);
    }
  };
};

// Of two inputs, both normalised.
struct ApplyBoth {
  static constexpr bool kGivesSigns = true;
  static constexpr int kAtOnce = 2;  // so that two blocks have registers enough
  Apply first, second;
  template <int Width>
  struct Channels {
    Apply::Channels<Width> first, second;
    PYCNN_BOTH Channels(const ApplyBoth& f, std::int64_t c)
        : first(f.first, c), second(f.second, c) {}
    PYCNN_BOTH float operator()(const ApplyBoth& f, int i, float x, float residual) const {
      return first(f.first, i, x, second.normed(i, residual));
    }
  };
};

template <class T>
struct GradientTerm {
  static constexpr int kSums = 2, kWidth = kVector<T>;
  struct Row {
    Pack<T, kWidth> x, g;
  };
  GradientParams p;
  struct Channels {
    float mean[kWidth], factor[kWidth] = {}, offset[kWidth] = {};
    PYCNN_BOTH Channels(const GradientTerm& term, std::int64_t c, int n) {
      load(term.p.mean + c, n, mean);
      if (term.p.curve.kind == CurveKind::kIdentity) return;
      load(term.p.factor + c, n, factor);
      load(term.p.offset + c, n, offset);
    }
  };
  PYCNN_BOTH Curve curve() const { return p.curve; }
  PYCNN_BOTH bool is_whole() const {
    return is_at_vector(p.input) && p.input_pitch % kWidth == 0 && is_at_vector(p.grad_output) &&
           p.grad_output_pitch % kWidth == 0;
  }
  template <bool kWhole>
  PYCNN_BOTH Row read(std::int64_t row, std::int64_t c, int n) const {
    return {load_pack<kWidth, kWhole>(static_cast<const T*>(p.input) + row * p.input_pitch + c, n),
            load_pack<kWidth, kWhole>(
                static_cast<const T*>(p.grad_output) + row * p.grad_output_pitch + c, n)};
  }
  PYCNN_BOTH void operator()(const Channels& channels, const Curve& curve, const Row& row,
                             float (&values)[2][kWidth]) const {
    float x[kWidth];
    widen(row.x, x);
    widen(row.g, values[0]);
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      const float centered = x[i] - channels.mean[i];
      if (curve.kind != CurveKind::kIdentity)
        values[0][i] =
            open_gradient(curve, centered, channels.factor[i], channels.offset[i], values[0][i]);
      values[1][i] = values[0][i] * centered;
    }
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

// Of the input and the output's gradient.
struct InputGradient {
  static constexpr bool kGivesSigns = false;
  static constexpr int kAtOnce = 2;  // so that two blocks have registers enough
  const float* mean;
  const float* a;
  const float* b;
  const float* c;
  const float* factor;
  const float* offset;
  Curve curve;
  bool through_statistics;
  template <int Width>
  struct Channels {
    float mean[Width], a[Width], b[Width], c[Width], factor[Width] = {}, offset[Width] = {};
    bool open;
    PYCNN_BOTH Channels(const InputGradient& f, std::int64_t channel)
        : open(f.curve.kind == CurveKind::kIdentity) {
      load_vector(f.mean, channel, mean);
      load_vector(f.a, channel, a);
      load_vector(f.b, channel, b);
      load_vector(f.c, channel, c);
      if (open) return;
      load_vector(f.factor, channel, factor);
      load_vector(f.offset, channel, offset);
    }
    PYCNN_BOTH float operator()(const InputGradient& f, int i, float x, float g) const {
      const float centered = x - mean[i];
      const float result =
          a[i] * (open ? g : open_gradient(f.curve, centered, factor[i], offset[i], g));
      return f.through_statistics ? result + (b[i] * centered + c[i]) : result;
    }
  };
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
    launch_column_sums(queue, MeanTerm<T>(input, params.input_pitch),
                       MeanFinish<T>{input, params.rows, mean}, shape, partials);
    launch_column_sums(queue, VarianceTerm<T>(input, params.input_pitch, mean),
                       StatisticsFinish{params, mean}, shape, partials);
  });
}

void batch_norm_apply(DeviceQueue& queue, Image image, const ApplyParams& p) {
  const RowTensors tensors{p.input,        p.residual, p.output,   p.input_pitch, p.residual_pitch,
                           p.output_pitch, p.rows,     p.channels, p.signs};
  const Apply apply{p.mean, p.factor, p.offset, p.curve};
  if (p.residual_mean == nullptr) return map_rows(queue, image, tensors, apply);
  map_rows(queue, image, tensors,
           ApplyBoth{apply, {p.residual_mean, p.residual_factor, p.residual_offset, {}}});
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
  map_rows(queue, image,
           {params.input, params.grad_output, params.grad_input, params.input_pitch,
            params.grad_output_pitch, params.grad_input_pitch, params.rows, params.channels},
           InputGradient{params.mean, a, b, c, params.factor, params.offset, params.curve,
                         params.through_statistics});
}

void inference_factors(DeviceQueue& queue, const float* scale, const float* var, double eps,
                       float* inv_std, float* factor, std::int64_t channels) {
  launch_map(queue, InferenceFactors{scale, var, eps, inv_std, factor}, channels);
}

void fold_batch_norm(DeviceQueue& queue, const FoldParams& params) {
  launch_map(queue, Fold{params}, params.channels * (params.per_channel + 1));
}

}  // namespace pycnn::cuda
