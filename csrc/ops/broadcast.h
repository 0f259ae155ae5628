#pragma once
#include "pycnn/tensor.h"

namespace pycnn::ops {

// The shape that both broadcast to as NumPy does. Throws ShapeError naming the axis that differs.
Shape broadcast_shapes(const Shape& a, const Shape& b);

}  // namespace pycnn::ops
