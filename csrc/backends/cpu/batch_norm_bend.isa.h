#pragma once
#include "backends/cpu/batch_norm.h"
#include "backends/cpu/simd.isa.h"

namespace pycnn::cpu::PYCNN_ISA::batch_norm {

// What a gradient is told of the activation that it comes through, and what x becomes behind it.
enum class Bend { kNone, kRelu, kLeakyRelu, kAny };

PYCNN_INLINE Vec below(Vec x, const Rectifier& r) {
  return as_float(as_int(broadcast(r.slope) * x) & r.keep);
}

template <Bend kBend>
PYCNN_INLINE Vec activated(Vec x, const Rectifier& r) {
  if constexpr (kBend == Bend::kNone) {
    return x;
  } else if constexpr (kBend == Bend::kRelu) {
    return relu(x);
  } else {
    x = select(x < broadcast(r.low), below(x, r), x);
    return select(x > broadcast(r.high), broadcast(r.high), x);
  }
}

template <Bend kBend>
PYCNN_INLINE Vec passed_back(Vec grad, Vec y, const Rectifier& r) {
  if constexpr (kBend == Bend::kNone) {
    return grad;
  } else if constexpr (kBend == Bend::kRelu) {
    return select(y <= zero(), zero(), grad);
  } else if constexpr (kBend == Bend::kLeakyRelu) {
    // Not the other way round: NaN is not above 0.
    return select(y > zero(), grad, broadcast(r.slope) * grad);
  } else {
    return select(y >= broadcast(r.high), zero(),
                  select(y <= broadcast(r.low), below(grad, r), grad));
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA::batch_norm
