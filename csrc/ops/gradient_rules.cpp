#include "ops/gradient_rules.h"

#include <algorithm>
#include <numeric>

#include "ops/checks.h"

namespace pycnn::ops {

Op reshape_to(const Shape& from, const Shape& to) {
  // In a Reshape 0 means "as the input's axis", so an empty axis is either that or what is left.
  Shape shape = to;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0 && (i >= from.size() || from[i] != 0)) shape[i] = -1;
  }
  return Reshape{shape};
}

Symbol sum_to(GradientContext& context, Symbol value, const Shape& from, const Shape& to) {
  if (from == to) return value;
  const std::size_t added = from.size() - to.size();
  Reduce reduce{Reduction::kSum, {}, true};
  Shape kept = from;
  for (std::size_t axis = 0; axis < from.size(); ++axis) {
    const std::int64_t target = axis < added ? 1 : to[axis - added];
    if (target == from[axis]) continue;
    reduce.axes.push_back(static_cast<std::int64_t>(axis));
    kept[axis] = 1;
  }
  if (!reduce.axes.empty()) value = context.emit(reduce, {value});
  return added == 0 ? value : context.emit(reshape_to(kept, to), {value});
}

Symbol sum_to_last_axis(GradientContext& context, Symbol value, const Shape& shape) {
  Reduce reduce{Reduction::kSum, std::vector<std::int64_t>(shape.size() - 1), false};
  std::iota(reduce.axes.begin(), reduce.axes.end(), 0);
  return context.emit(std::move(reduce), {value});
}

void no_gradient(const char* why) { fail<GraphError>("has no gradient", why); }

}  // namespace pycnn::ops
