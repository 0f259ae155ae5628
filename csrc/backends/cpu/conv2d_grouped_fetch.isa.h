#pragma once
#include "backends/cpu/conv2d_grouped_tiles.h"

namespace pycnn::cpu {

// Asks L2 for the lines of part t of a range. (L1 has this row's inputs and weights to hold.)
static inline __attribute__((always_inline)) void fetch_part(const FloatRange& range, Index t,
                                                             Index parts) {
  constexpr Index kLine = 16;
  const Index lines = (range.count + kLine - 1) / kLine;
  for (Index line = lines * t / parts; line < lines * (t + 1) / parts; ++line)
    __builtin_prefetch(range.from + line * kLine, 0, 2);
}

}  // namespace pycnn::cpu
