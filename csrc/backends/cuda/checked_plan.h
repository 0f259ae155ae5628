#pragma once
#include <optional>
#include <string>
#include <vector>

#include "backends/cuda/conv2d_call.h"
#include "backends/cuda/device_timer.h"

// Whether what a library's plan leaves is what our own kernel does, on the same operands: no plan
// that was fastest, or was kept by another process, is taken for being fast alone.
namespace pycnn::cuda {

// A matrix that a call computes.
struct ResultPart {
  void* data;
  Image image;
  std::int64_t rows, channels, pitch;  // elements from row to row
  std::int64_t bytes() const { return rows * pitch * (is_narrow(image) ? 2 : 4); }
};
// The result, or the gradient; of weights, that of the bias behind it.
std::vector<ResultPart> results_of(const ConvTask& task, const ConvCall& call);
// The call with its results elsewhere, in the order of results_of.
ConvCall with_results(const ConvTask& task, ConvCall call, const std::vector<ResultPart>& results);

// Fills what a run of the task writes, and scratch, with NaN; false: it could not.
bool poison(DeviceTimer& timer, const ConvTask& task, const ConvCall& call, void* scratch,
            std::int64_t scratch_bytes);

// Differences, as the square root of their squares, relative to that of what is expected. Sums have
// orders of their own and are rounded once more or less; what is wrong in one tile is beyond that.
constexpr double kNarrowDifference = 1e-2, kTf32Difference = 2e-3, kFloat32Difference = 1e-4;
double most_difference(Image image, bool tf32);

// Of device memory that result_difference wants for its sums.
std::int64_t difference_bytes(const std::vector<ResultPart>& results);
// What is wrong with what a run left; empty: nothing. None: it could not be seen.
std::optional<std::string> result_difference(DeviceTimer& timer, const ConvTask& task, bool tf32,
                                             const std::vector<ResultPart>& expected,
                                             const std::vector<ResultPart>& actual, void* sums);
// The same of the sums of pieces (compare.h).
std::optional<std::string> piece_difference(const std::vector<double>& sums, std::int64_t piece,
                                            std::int64_t rows, double most);

}  // namespace pycnn::cuda
