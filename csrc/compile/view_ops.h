#pragma once
#include "pycnn/ops.h"

namespace pycnn {

// Whether an op of one input and one output leaves the elements as they stand in memory, row by
// row, so that the output may be the input's memory under another shape.
bool only_renames(const Op& op, const TensorSpec& input, const TensorSpec& output);

}  // namespace pycnn
