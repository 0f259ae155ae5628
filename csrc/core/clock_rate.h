#pragma once
#include "pycnn/export.h"

namespace pycnn {

// Cycles a second of the core that the caller runs on, from a chain of additions of one cycle each.
// Takes about 0.3 ms; the best of three tries, so that an interruption does not count.
PYCNN_API double clock_rate() noexcept;

}  // namespace pycnn
