#include "compile/view_ops.h"

namespace pycnn {
namespace {

// The axes that are not 1 keep their order.
bool keeps_order(const ops::Transpose& transpose, const Shape& shape) {
  std::int64_t last = -1;
  for (const std::int64_t axis : transpose.permutation) {
    if (shape[static_cast<std::size_t>(axis)] == 1) continue;
    if (axis < last) return false;
    last = axis;
  }
  return true;
}

}  // namespace

bool only_renames(const Op& op, const TensorSpec& input, const TensorSpec& output) {
  if (input.dtype != output.dtype || element_count(input.shape) != element_count(output.shape))
    return false;
  if (const auto* transpose = std::get_if<ops::Transpose>(&op))
    return keeps_order(*transpose, input.shape);
  if (const auto* activation = std::get_if<ops::Activation>(&op))
    return activation->kind == ActivationKind::kIdentity;
  // A window for each cell. Equal sizes alone do not tell: 2x3 cells may become 3x2.
  if (std::holds_alternative<ops::AdaptiveAvgPool2d>(op) ||
      std::holds_alternative<ops::AdaptiveAvgPool2dGrad>(op))
    return input.shape == output.shape;
  if (std::holds_alternative<ops::Cast>(op)) return true;  // to the type it has
  // Of equal size, these have nothing left to do.
  return std::holds_alternative<ops::Reshape>(op) || std::holds_alternative<ops::Concat>(op) ||
         std::holds_alternative<ops::Broadcast>(op) || std::holds_alternative<ops::Slice>(op) ||
         std::holds_alternative<ops::Pad>(op);
}

}  // namespace pycnn
