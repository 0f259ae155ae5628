// Takes the place of core/bfloat16_units.cpp in pycnn_tile_tests, whose AMX is software_tiles.h.
// Its loops have AVX512_BF16 beside the tiles.
#include "core/bfloat16_units.h"

namespace pycnn {

bool has_avx512_bf16() noexcept { return __builtin_cpu_supports("avx512bf16") > 0; }
bool has_amx_bf16() noexcept { return has_avx512_bf16(); }

namespace testing {
// Of variants_main.cpp; other kernels have been looked at by pycnn_tests.
const char* variants_looked_at() { return ".amx"; }
}  // namespace testing

}  // namespace pycnn
