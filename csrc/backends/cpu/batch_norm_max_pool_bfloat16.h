#pragma once
#include "backends/backend.h"
#include "pycnn/ops.h"

namespace pycnn::cpu {

#if PYCNN_HAVE_AVX512
Kernel make_normed_pool_grad(const ops::BatchNormMaxPoolGrad& op, const Problem& problem);
#endif

}  // namespace pycnn::cpu
