#pragma once
#include "ops/gradient_context.h"

// Pieces that several gradient rules share.
namespace pycnn::ops {

// A Reshape that turns `from` into `to` (which has as many elements), also when one of them is 0.
Op reshape_to(const Shape& from, const Shape& to);

// Sums `value`, of shape `from`, down to `to`: the reverse of broadcasting `to` to `from`.
Symbol sum_to(GradientContext& context, Symbol value, const Shape& from, const Shape& to);

// Sum over all axes but the last: the gradient of a bias.
Symbol sum_to_last_axis(GradientContext& context, Symbol value, const Shape& shape);

// GraphError "has no gradient" + why; the caller puts op and node in front.
[[noreturn]] void no_gradient(const char* why = "");

}  // namespace pycnn::ops
