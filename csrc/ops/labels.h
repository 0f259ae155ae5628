#pragma once
#include "pycnn/tensor.h"

namespace pycnn::ops {

bool is_label_type(DType dtype);

// DTypeError, ShapeError unless (N) of i64 or i32 for N rows of scores.
void expect_labels(const TensorSpec& labels, std::int64_t rows, std::int64_t classes);

}  // namespace pycnn::ops
