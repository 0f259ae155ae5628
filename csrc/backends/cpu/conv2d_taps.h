#pragma once
#include <algorithm>
#include <vector>

#include "backends/cpu/conv2d_window.h"

// The taps of a window that output pixels meet, along one axis.
namespace pycnn::cpu {

struct AxisTap {
  Index kernel = 0;  // index in the weight
  Index input = 0;   // position relative to output index 0 of the pass
};

// Those of the pass with this residue modulo the stride, ascending in the input. Only transposed
// convolutions have more than one pass.
inline std::vector<AxisTap> axis_taps(const WindowProblem& w, int axis, Index residue) {
  std::vector<AxisTap> taps;
  const Index stride = w.stride[axis], dilation = w.dilation[axis], padding = w.padding[axis];
  for (Index k = 0; k < w.kernel_size[axis]; ++k) {
    if (!w.transposed) {
      taps.push_back({k, k * dilation - padding});
      continue;
    }
    const Index distance = residue + padding - k * dilation;
    if (distance % stride == 0) taps.push_back({k, distance / stride});
  }
  if (w.transposed) std::reverse(taps.begin(), taps.end());
  return taps;
}

// Whether each reads the pixel behind that of the one before.
inline bool follow_one_another(const std::vector<AxisTap>& taps) {
  for (std::size_t i = 1; i < taps.size(); ++i)
    if (taps[i].input != taps[i - 1].input + 1) return false;
  return true;
}

// Of one pass.
struct PassTaps {
  std::vector<AxisTap> rows, columns;
};

}  // namespace pycnn::cpu
