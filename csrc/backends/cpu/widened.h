#pragma once
#include <string_view>

#include "backends/backend.h"
#include "core/function_ref.h"

// bfloat16 by float32 kernels: for ops that have no kernel of their own, and for machines without a
// unit for it. Images are widened into scratch, as few at a time as keep the threads busy, and the
// results rounded; weights of convolution and dense are rounded first, so that the same is
// multiplied as by those units. Their sums are float32 too, in another order.
namespace pycnn::cpu {

// "conv2d.lanes.avx2" runs as "conv2d.lanes.avx2.widened".
inline constexpr std::string_view kWidenedSuffix = ".widened";

bool has_bfloat16(const Problem& problem) noexcept;

// `select` chooses for the same problem with float32 in place of bfloat16.
Selection widen(std::string_view op, const Problem& problem,
                FunctionRef<Selection(const Problem&)> select);

}  // namespace pycnn::cpu
