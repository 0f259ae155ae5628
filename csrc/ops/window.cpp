#include "ops/window.h"

namespace pycnn::ops {
namespace {

constexpr std::int64_t kMaxWindowCells = std::int64_t{1} << 24;

[[noreturn]] void no_output(const WindowAxis& a) {
  const std::string dilated =
      a.dilation == 1 ? "" : cat(" (", a.extent(), " with dilation ", a.dilation, ")");
  fail<ShapeError>("no output is left along the ", a.name, ": input N = ", a.size,
                   ", padding P = ", a.before, " + ", a.after, ", kernel F = ", a.kernel, dilated,
                   ", stride = ", a.stride, "; N + P must be at least ", a.extent());
}

}  // namespace

std::int64_t count_windows(const WindowAxis& a, Rounding rounding) {
  const std::int64_t padded = checked_add(a.size, checked_add(a.before, a.after));
  const std::int64_t room = padded - a.extent();
  std::int64_t count = 0;
  if (rounding == Rounding::kFloor) {
    if (room < 0) no_output(a);
    count = room / a.stride + 1;
  } else {
    // room may be down to 1 - stride: then one window hangs over the end.
    const std::int64_t raised = checked_add(room, a.stride - 1);
    if (raised < 0) no_output(a);
    count = raised / a.stride + 1;
    if (checked_multiply(count - 1, a.stride) >= checked_add(a.size, a.before)) --count;
    if (count < 1) no_output(a);
  }
  return count;
}

WindowAxis window_axis(int which, const Pair& size, const Padding& padding, const Pair& kernel,
                       const Pair& dilation, const Pair& stride) {
  const bool vertical = which == 0;
  return {vertical ? "height" : "width",
          size[which],
          vertical ? padding.top : padding.left,
          vertical ? padding.bottom : padding.right,
          kernel[which],
          dilation[which],
          stride[which]};
}

Pair count_windows(const Pair& size, const Padding& padding, const Pair& kernel,
                   const Pair& dilation, const Pair& stride, Rounding rounding) {
  Pair counts, extents;
  for (int which = 0; which < 2; ++which) {
    const WindowAxis axis = window_axis(which, size, padding, kernel, dilation, stride);
    counts[which] = count_windows(axis, rounding);
    extents[which] = axis.extent();
  }
  // Kernels keep copies of what a window spans; this bounds them, and their tables, for any file.
  if (checked_multiply(extents[0], extents[1]) > kMaxWindowCells) {
    fail<ShapeError>("a window spans ", extents[0], " x ", extents[1], " pixels (kernel ", kernel,
                     ", dilation ", dilation, "), expected at most ", kMaxWindowCells, " in all");
  }
  return counts;
}

}  // namespace pycnn::ops
