#pragma once
#include "pycnn/export.h"

namespace pycnn {

// Whether this processor and operating system have a unit that multiplies bfloat16: the dot
// products of AVX512_BF16, the tiles of AMX. PYCNN_MAX_ISA says nothing about them. The system is
// asked for the tiles' registers once; where it refuses, there are none.
PYCNN_API bool has_avx512_bf16() noexcept;
PYCNN_API bool has_amx_bf16() noexcept;

}  // namespace pycnn
