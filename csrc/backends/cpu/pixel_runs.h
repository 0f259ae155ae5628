#pragma once
#include <initializer_list>

#include "backends/backend.h"
#include "core/function_ref.h"

namespace pycnn::cpu {

// Shares out element-wise work on tensors of one shape whose pixels may lie apart
// (TensorView::pixel_pitch). Calls body(at, n) for runs of n elements that follow one another in
// each tensor; at[i] is the first one's place in the i-th. At most three tensors.
void parallel_runs(int threads, std::initializer_list<const TensorView*> tensors,
                   FunctionRef<void(const std::int64_t* at, std::int64_t n)> body) noexcept;

}  // namespace pycnn::cpu
