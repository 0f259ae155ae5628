#include "backends/cuda/checked_plan.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "backends/cuda/compare.h"

namespace pycnn::cuda {
namespace {

bool went_well(cudaError_t error) {
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error == cudaSuccess;
}

bool fill_with_nan(DeviceTimer& timer, void* data, std::int64_t bytes) {
  constexpr int kAllBits = 0xFF;  // NaN in all image types
  return went_well(
      cudaMemsetAsync(data, kAllBits, static_cast<std::size_t>(bytes), timer.queue().stream));
}

std::int64_t sum_bytes(const ResultPart& part) {
  const std::int64_t piece = piece_rows(part.rows, part.channels);
  return (part.rows + piece - 1) / piece * 2 * static_cast<std::int64_t>(sizeof(double));
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  char text[32];
  (void)std::snprintf(text, sizeof text, "%.2g", value);
  return text;
}

}  // namespace

std::vector<ResultPart> results_of(const ConvTask& task, const ConvCall& call) {
  const ConvShape& s = task.shape;
  switch (task.direction) {
    case Direction::kForward:
      return {{const_cast<void*>(call.output), task.image, s.pixels(), s.out_channels,
               s.output_pitch()}};
    case Direction::kGradInput:
      return {{const_cast<void*>(call.input), task.image, result_rows(task), s.in_channels,
               s.input_pitch()}};
    case Direction::kGradWeight:
      break;
  }
  std::vector<ResultPart> parts = {
      {call.grad_weight, Image::kFloat32, s.out_channels, s.window(), s.window()}};
  if (call.grad_bias != nullptr)
    parts.push_back({call.grad_bias, Image::kFloat32, 1, s.out_channels, s.out_channels});
  return parts;
}

ConvCall with_results(const ConvTask& task, ConvCall call, const std::vector<ResultPart>& results) {
  void* const first = results.front().data;
  if (task.direction == Direction::kForward) call.output = first;
  if (task.direction == Direction::kGradInput) call.input = first;
  if (task.direction == Direction::kGradWeight) {
    call.grad_weight = static_cast<float*>(first);
    if (results.size() > 1) call.grad_bias = static_cast<float*>(results.back().data);
  }
  return call;
}

bool poison(DeviceTimer& timer, const ConvTask& task, const ConvCall& call, void* scratch,
            std::int64_t scratch_bytes) {
  for (const ResultPart& part : results_of(task, call))
    if (!fill_with_nan(timer, part.data, part.bytes())) return false;
  if (task.measure != MeasureKind::kNothing) {
    const std::int64_t kinds = task.measure == MeasureKind::kMoments ? 3 : 2;
    const auto item = static_cast<std::int64_t>(sizeof(float));
    if (!fill_with_nan(timer, call.measure.result, kinds * result_channels(task) * item))
      return false;
  }
  return fill_with_nan(timer, scratch, scratch_bytes);
}

double most_difference(Image image, bool tf32) {
  if (is_narrow(image)) return kNarrowDifference;
  return tf32 ? kTf32Difference : kFloat32Difference;
}

std::int64_t difference_bytes(const std::vector<ResultPart>& results) {
  std::int64_t most = 0;
  for (const ResultPart& part : results) most = std::max(most, sum_bytes(part));
  return most;
}

std::optional<std::string> piece_difference(const std::vector<double>& sums, std::int64_t piece,
                                            std::int64_t rows, double most) {
  const std::size_t pieces = sums.size() / 2;
  double expected = 0.0, differences = 0.0;
  for (std::size_t p = 0; p < pieces; ++p) {
    expected += sums[2 * p];
    differences += sums[2 * p + 1];
  }
  if (!std::isfinite(expected)) return std::nullopt;  // there is nothing to hold it against
  const auto told = [&](const std::string& what, double difference, double against) {
    return what + number_text(std::sqrt(difference / against)) +
           " from our own kernel's (at most " + number_text(most) + ")";
  };
  // A piece whose values happen to be small is held against the others.
  const double mean = pieces > 0 ? expected / static_cast<double>(pieces) : 0.0;
  for (std::size_t p = 0; p < pieces; ++p) {
    const double against = std::max(sums[2 * p], mean), difference = sums[2 * p + 1];
    if (difference <= most * most * against) continue;
    const std::int64_t begin = static_cast<std::int64_t>(p) * piece;
    return told("rows " + std::to_string(begin) + " to " +
                    std::to_string(std::min(begin + piece, rows) - 1) + " differ by ",
                difference, against);
  }
  if (differences <= most * most * expected) return std::string();
  return told("it differs by ", differences, expected);
}

std::optional<std::string> result_difference(DeviceTimer& timer, const ConvTask& task, bool tf32,
                                             const std::vector<ResultPart>& expected,
                                             const std::vector<ResultPart>& actual, void* sums) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const ResultPart& part = expected[i];
    const Comparison comparison{part.data,
                                actual[i].data,
                                part.rows,
                                part.channels,
                                part.pitch,
                                piece_rows(part.rows, part.channels),
                                static_cast<double*>(sums)};
    std::vector<double> found(static_cast<std::size_t>(2 * comparison.pieces()));
    if (!timer.runs([&] { compare(timer.queue(), part.image, comparison); })) return std::nullopt;
    const cudaStream_t stream = timer.queue().stream;
    if (!went_well(cudaMemcpyAsync(found.data(), sums, found.size() * sizeof(double),
                                   cudaMemcpyDeviceToHost, stream)) ||
        !went_well(cudaStreamSynchronize(stream)))
      return std::nullopt;
    const std::optional<std::string> problem =
        piece_difference(found, comparison.piece, part.rows, most_difference(task.image, tf32));
    if (!problem || !problem->empty()) return problem;
  }
  return std::string();
}

}  // namespace pycnn::cuda
