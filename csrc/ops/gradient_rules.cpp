#include "ops/gradient_rules.h"

#include <algorithm>
#include <numeric>

#include "ops/checks.h"

namespace pycnn::ops {
namespace {

// Sums are made in f32 at least.
Symbol in_float(GradientContext& context, Symbol value, DType dtype) {
  return is_low_precision(dtype) ? context.emit(Cast{DType::kFloat32}, {value}) : value;
}

}  // namespace

Op reshape_to(const Shape& from, const Shape& to) {
  // In a Reshape 0 means "as the input's axis", so an empty axis is either that or what is left.
  Shape shape = to;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0 && (i >= from.size() || from[i] != 0)) shape[i] = -1;
  }
  return Reshape{shape};
}

Symbol sum_to(GradientContext& context, Symbol value, const TensorSpec& from, const Shape& to) {
  if (from.shape == to) return value;
  const std::size_t added = from.shape.size() - to.size();
  Reduce reduce{Reduction::kSum, {}, true};
  Shape kept = from.shape;
  for (std::size_t axis = 0; axis < kept.size(); ++axis) {
    const std::int64_t target = axis < added ? 1 : to[axis - added];
    if (target == kept[axis]) continue;
    reduce.axes.push_back(static_cast<std::int64_t>(axis));
    kept[axis] = 1;
  }
  if (!reduce.axes.empty()) {
    value = context.emit(reduce, {in_float(context, value, from.dtype)});
    if (is_low_precision(from.dtype)) value = context.emit(Cast{from.dtype}, {value});
  }
  return added == 0 ? value : context.emit(reshape_to(kept, to), {value});
}

Symbol sum_to_last_axis(GradientContext& context, Symbol value, const TensorSpec& spec) {
  Reduce reduce{Reduction::kSum, std::vector<std::int64_t>(spec.shape.size() - 1), false};
  std::iota(reduce.axes.begin(), reduce.axes.end(), 0);
  return context.emit(std::move(reduce), {in_float(context, value, spec.dtype)});
}

void no_gradient(const char* why) { fail<GraphError>("has no gradient", why); }

}  // namespace pycnn::ops
