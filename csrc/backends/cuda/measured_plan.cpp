#include "backends/cuda/measured_plan.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace pycnn::cuda {
namespace {

// Of the first, middle and last ones of a result.
constexpr std::int64_t kSample = std::int64_t{1} << 16;

const void* result_of(const ConvTask& task, const ConvCall& call) {
  return task.direction == Direction::kForward ? call.output : call.input;
}
std::int64_t item_bytes(const ConvTask& task) { return is_narrow(task.image) ? 2 : 4; }
std::int64_t result_count(const ConvTask& task) {
  return result_rows(task) * result_channels(task);
}
std::int64_t sum_count(const ConvTask& task) {
  return result_channels(task) * (task.measure == MeasureKind::kMoments ? 3 : 2);
}

bool good(cudaError_t error) {
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error == cudaSuccess;
}

float largest(const float* values, std::size_t count) {
  float most = 0.0f;
  for (std::size_t i = 0; i < count; ++i) most = std::max(most, std::abs(values[i]));
  return most;
}

// Also where either is no number.
bool differ(float a, float b, float tolerance) { return !(std::abs(a - b) <= tolerance); }

std::string told(const char* what, std::size_t place, float expected, float actual) {
  return std::string(what) + " " + std::to_string(place) + " is " + std::to_string(actual) +
         " instead of " + std::to_string(expected);
}

}  // namespace

std::optional<Measurement> read_measurement(DeviceTimer& timer, const ConvTask& task,
                                            const ConvCall& call) {
  const cudaStream_t stream = timer.queue().stream;
  Measurement found;
  found.sums.resize(static_cast<std::size_t>(sum_count(task)));
  bool read =
      good(cudaMemcpyAsync(found.sums.data(), call.measure.result,
                           found.sums.size() * sizeof(float), cudaMemcpyDeviceToHost, stream));
  const std::int64_t count = result_count(task), sample = std::min(count, kSample);
  const std::int64_t item = item_bytes(task);
  std::vector<std::byte> bytes(static_cast<std::size_t>(3 * sample * item));
  int part = 0;
  for (const std::int64_t begin : {std::int64_t{0}, (count - sample) / 2, count - sample})
    read = read && good(cudaMemcpyAsync(
                       bytes.data() + part++ * sample * item,
                       static_cast<const std::byte*>(result_of(task, call)) + begin * item,
                       static_cast<std::size_t>(sample * item), cudaMemcpyDeviceToHost, stream));
  if (!good(cudaStreamSynchronize(stream)) || !read) return std::nullopt;
  with_image(task.image, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t i = 0; i < 3 * sample; ++i) {
      T value;
      std::memcpy(&value, bytes.data() + i * item, sizeof value);
      found.values.push_back(widened(value));
    }
  });
  return found;
}

MeasureTolerance own_tolerance(std::int64_t rows) {
  // A tile has at least kTile rows. The least ones are what float32 may lose of so many numbers.
  constexpr float kTile = 64.0f, kLeastMean = 4e-6f, kLeastSum = 2e-3f, kSumRows = 3.5f;
  const auto count = static_cast<float>(std::max<std::int64_t>(rows, 1));
  const MeasureTolerance others;
  return {std::clamp(0.6f * kTile / count, kLeastMean, others.mean),
          std::clamp(kSumRows / std::sqrt(count), kLeastSum, others.sum)};
}

std::string difference(const ConvTask& task, const Measurement& expected, const Measurement& actual,
                       const MeasureTolerance& allowed) {
  if (expected.sums.size() != actual.sums.size() || expected.values.size() != actual.values.size())
    return "there is more or less of it";
  const auto channels = static_cast<std::size_t>(result_channels(task));
  const std::vector<float>&e = expected.sums, &a = actual.sums;
  if (task.measure == MeasureKind::kMoments) {
    for (std::size_t c = 0; c < channels; ++c) {
      // What is lost of a mean in float32 is part of it.
      const float tolerance =
          allowed.mean * std::sqrt(e[2 * channels + c]) + std::abs(e[c]) * 0x1p-20f;
      const float mean = a[c] + a[channels + c];
      if (differ(mean, e[c] + e[channels + c], tolerance)) return told("mean", c, e[c], mean);
      if (differ(a[2 * channels + c], e[2 * channels + c], allowed.mean * e[2 * channels + c]))
        return told("variance", c, e[2 * channels + c], a[2 * channels + c]);
    }
  } else {
    for (std::size_t kind = 0; kind < 2; ++kind) {
      const float tolerance = allowed.sum * largest(e.data() + kind * channels, channels);
      for (std::size_t i = kind * channels; i < (kind + 1) * channels; ++i)
        if (differ(a[i], e[i], tolerance)) return told("sum", i, e[i], a[i]);
    }
  }
  const float tolerance = kValueTolerance * largest(expected.values.data(), expected.values.size());
  for (std::size_t i = 0; i < expected.values.size(); ++i)
    if (differ(actual.values[i], expected.values[i], tolerance))
      return told("value", i, expected.values[i], actual.values[i]);
  return {};
}

bool same_bits(const Measurement& a, const Measurement& b) {
  const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() &&
           (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
  };
  return same(a.sums, b.sums) && same(a.values, b.values);
}

}  // namespace pycnn::cuda
