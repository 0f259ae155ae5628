#pragma once
#include "ops/gradient_context.h"

// Pieces that several gradient rules share.
namespace pycnn::ops {

// A Reshape that turns `from` into `to` (which has as many elements), also when one of them is 0.
Op reshape_to(const Shape& from, const Shape& to);

// Sums `value`, described by `from`, down to the shape `to`: the reverse of broadcasting `to` to
// `from`. Has the type of `from`; bf16 and f16 are summed in f32.
Symbol sum_to(GradientContext& context, Symbol value, const TensorSpec& from, const Shape& to);

// Sum over all axes but the last: the gradient of a bias. Of bf16 and f16 it is f32.
Symbol sum_to_last_axis(GradientContext& context, Symbol value, const TensorSpec& spec);

// GraphError "has no gradient" + why; the caller puts op and node in front.
[[noreturn]] void no_gradient(const char* why = "");

}  // namespace pycnn::ops
