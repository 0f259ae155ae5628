#include "backends/cpu/conv2d_measure.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

constexpr std::int64_t kJoinedChannels = 64;  // at a time

}  // namespace

void MeasurePlan::reserve(Kernel& kernel) {
  if (kind == MeasureKind::kNothing) return;
  constexpr std::size_t kLine = 64;
  kernel.scratch_bytes = ceil_div(kernel.scratch_bytes, kLine) * kLine;
  offset = static_cast<std::int64_t>(kernel.scratch_bytes);
  kernel.scratch_bytes += static_cast<std::size_t>(floats()) * sizeof(float);
}

Measure::Measure(const MeasurePlan& plan, const KernelArgs& args, const MeasureFunctions& functions)
    : plan_(plan), args_(args), functions_(functions) {
  if (plan.kind != MeasureKind::kSums) return;
  const NormSums& norm = std::get_if<ops::Conv2dGradInput>(args.op)->sums;
  rectifier_ = rectifier_of(norm.activation, norm.slope);
}

template <class T>
void Measure::take(const BatchNormFunctions<T>& functions, std::int64_t pixel, const MoreRows& rows,
                   std::int64_t first_channel, float* partial) const {
  const T* const result = args_.outputs[0].as<const T>() + pixel * rows.pitch + first_channel;
  float* const first = partial + first_channel;
  const std::int64_t all = plan_.channels;
  if (plan_.kind == MeasureKind::kMoments)
    return functions.more_statistics(result, rows, first, first + all, first + 2 * all);
  const std::span<const TensorView> own =
      args_.inputs.last(kMeasuredNormInputs);  // input, mean, factor, offset
  const auto channel = [&](std::size_t i) { return own[i].as<const float>() + first_channel; };
  const Gate gate{channel(2), channel(3), rectifier_.value_or(Rectifier{})};
  functions.gradient_sums(own[0].as<const T>() + pixel * all + first_channel, all, result, rows,
                          channel(1), rectifier_ ? &gate : nullptr, first, first + all);
}

void Measure::take(std::int64_t pixel, const MoreRows& rows, std::int64_t first_channel,
                   float* partial) const {
  if (functions_.of_bfloat16 != nullptr)
    take(*functions_.of_bfloat16, pixel, rows, first_channel, partial);
  else
    take(*functions_.of_float, pixel, rows, first_channel, partial);
}

void MeasuredPart::take() {
  if (count_ == 0) return;
  const TensorView& output = measure_.args_.outputs[0];
  const MoreRows rows{count_, channels_, output.pitch(), taken_};
  measure_.take(pixel_, rows, first_channel_, partial_);
  taken_ += count_, count_ = 0;
}

MeasuredPart::~MeasuredPart() {
  take();
  // By one of those who share out the channels.
  const MeasurePlan& plan = measure_.plan_;
  if (first_channel_ == 0) partial_[plan.numbers() * plan.channels] = static_cast<float>(taken_);
}

// By the formula of Chan, Golub and LeVeque (1979).
void Measure::finish_moments() const {
  const std::int64_t channels = plan_.channels;
  float* const moments = args_.outputs[1].as<float>();
  std::int64_t pixels = 0;
  for (std::int64_t part = 0; part < plan_.parts; ++part) pixels += pixels_of(part);
  const double n = static_cast<double>(std::max<std::int64_t>(pixels, 1));
  auto join = [&](std::int64_t begin, std::int64_t end) {
    double mean[kJoinedChannels] = {}, m2[kJoinedChannels] = {};
    // Calls f(channel, pixels, mean, sum of squares).
    auto for_parts = [&](auto&& f) {
      for (std::int64_t part = 0; part < plan_.parts; ++part) {
        if (pixels_of(part) == 0) continue;
        const double own = static_cast<double>(pixels_of(part));
        const float *const pivot = partial(part), *const shift = pivot + channels,
                           *const squares = shift + channels;
        for (std::int64_t c = begin; c < end; ++c)
          f(c - begin, own, static_cast<double>(pivot[c]) + static_cast<double>(shift[c]),
            static_cast<double>(squares[c]));
      }
    };
    for_parts([&](std::int64_t c, double own, double m, double) { mean[c] += own * m; });
    for (double& m : mean) m /= n;
    for_parts([&](std::int64_t c, double own, double m, double squares) {
      m2[c] += squares + own * (m - mean[c]) * (m - mean[c]);
    });
    for (std::int64_t c = begin; c < end; ++c) {
      const double m = mean[c - begin];
      const float rounded = static_cast<float>(m);
      moments[c] = rounded;
      moments[channels + c] =
          std::isfinite(rounded) ? static_cast<float>(m - static_cast<double>(rounded)) : 0.0f;
      moments[2 * channels + c] = static_cast<float>(std::max(m2[c - begin] / n, 0.0));
    }
  };
  parallel_ranges(args_.threads, channels, kJoinedChannels, join);
}

void Measure::finish_sums() const {
  const std::int64_t channels = plan_.channels;
  auto join = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = 0; row < 2; ++row) {
      double sums[kJoinedChannels] = {};
      for (std::int64_t part = 0; part < plan_.parts; ++part) {
        if (pixels_of(part) == 0) continue;
        const float* const own = partial(part) + row * channels;
        for (std::int64_t c = begin; c < end; ++c) sums[c - begin] += static_cast<double>(own[c]);
      }
      for (std::int64_t c = begin; c < end; ++c)
        args_.outputs[1].as<float>()[row * channels + c] = static_cast<float>(sums[c - begin]);
    }
  };
  parallel_ranges(args_.threads, channels, kJoinedChannels, join);
}

void Measure::finish() const {
  if (plan_.kind == MeasureKind::kMoments) finish_moments();
  if (plan_.kind == MeasureKind::kSums) finish_sums();
}

}  // namespace pycnn::cpu
