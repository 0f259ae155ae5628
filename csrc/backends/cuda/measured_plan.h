#pragma once
#include <optional>
#include <string>
#include <vector>

#include "backends/cuda/checked_plan.h"

// Whether a library's kernel that measures its result itself does so: beside another one that does
// not and the pass behind it, on the same operands. How such engines treat what they add up is not
// written down anywhere.
namespace pycnn::cuda {

// What a run left: the sums, and some of the values of its result.
struct Measurement {
  std::vector<float> sums, values;
};

// None: it could not be read.
std::optional<Measurement> read_measurement(DeviceTimer& timer, const ConvTask& task,
                                            const ConvCall& call);

// Of what was measured: means differ by at most `mean` of the deviation, variances by that of
// themselves, the sums of a gradient by `sum` of the largest of their kind, values by
// kValueTolerance of the largest. An engine may measure before it rounds, and adds in an order of
// its own.
struct MeasureTolerance {
  float mean = 1e-3f, sum = 1e-2f;  // of values that two kernels made
};
constexpr float kValueTolerance = 0x1p-6f;
// Of the same values: so little that a tile shows which was not counted, or twice, among all rows.
// What rounding does to a mean or variance falls with the root of the rows, what a tile does with
// their number; of sums, which have no order of magnitude of their own, it falls with the root.
MeasureTolerance own_tolerance(std::int64_t rows);
// Empty: nothing does.
std::string difference(const ConvTask& task, const Measurement& expected, const Measurement& actual,
                       const MeasureTolerance& tolerance = {});
bool same_bits(const Measurement& a, const Measurement& b);

}  // namespace pycnn::cuda
