// The two units that multiply bfloat16: VDPBF16PS (AVX512_BF16) and TDPBF16PS (AMX). Functions
// carry their instruction sets as attributes, and nothing else is compiled for these.
#include <cstdint>

#include "backends/cpu/peak_loops.h"
#include "core/bfloat16_units.h"

#if defined(__x86_64__) && defined(__linux__) && defined(PYCNN_HAVE_AVX512)
#include <immintrin.h>
#define PYCNN_BFLOAT16_UNITS 1
#else
#define PYCNN_BFLOAT16_UNITS 0
#endif

namespace pycnn::cpu {

#if PYCNN_BFLOAT16_UNITS
namespace {

constexpr int kDotChains = 24;
constexpr std::uint16_t kOne = 0x3F80;  // 1 as bfloat16

// Lanes of 32 bits; each adds two products.
__attribute__((target("avx512f,avx512bf16"))) float dot_chains(std::int64_t rounds) {
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(static_cast<short>(kOne));
  __m512 chain[kDotChains];
#pragma GCC unroll 24
  for (int i = 0; i < kDotChains; ++i) chain[i] = _mm512_set1_ps(static_cast<float>(i));
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kDotChains; ++i) chain[i] = _mm512_dpbf16_ps(chain[i], ones, ones);
  }
#pragma GCC unroll 24
  for (int i = 1; i < kDotChains; ++i) chain[0] = _mm512_add_ps(chain[0], chain[i]);
  return _mm512_cvtss_f32(chain[0]);
}

constexpr int kTileRows = 16, kTileRowBytes = 64, kTiles = 8;

// As LDTILECFG reads it.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Tiles 0 to 3 hold sums, 4 and 5 the rows of one matrix, 6 and 7 the columns of the other: what a
// multiplication of matrices does, without its loads.
__attribute__((target("amx-tile,amx-bf16"))) float tile_chains(std::int64_t rounds) {
  TileConfig config;
  for (int i = 0; i < kTiles; ++i) {
    config.row_bytes[i] = kTileRowBytes;
    config.rows[i] = kTileRows;
  }
  alignas(64) std::uint16_t ones[kTileRows * kTileRowBytes / 2];
  for (std::uint16_t& value : ones) value = kOne;
  alignas(64) float sums[kTileRows * kTileRowBytes / 4];
  // The intrinsics do not tell the compiler all that they read.
  __asm__ volatile("" ::: "memory");
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, ones, kTileRowBytes);
  _tile_loadd(5, ones, kTileRowBytes);
  _tile_loadd(6, ones, kTileRowBytes);
  _tile_loadd(7, ones, kTileRowBytes);
  __asm__ volatile("" ::: "memory");
  for (std::int64_t round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  float result = 0.0f;
  _tile_stored(0, sums, kTileRowBytes);
  result += sums[0];
  _tile_stored(1, sums, kTileRowBytes);
  result += sums[0];
  _tile_stored(2, sums, kTileRowBytes);
  result += sums[0];
  _tile_stored(3, sums, kTileRowBytes);
  result += sums[0];
  _tile_release();
  return result;
}

}  // namespace

ComputeLoop avx512_bf16_loop() {
  if (!has_avx512_bf16()) return {};
  return {"avx512_bf16", dot_chains, std::int64_t{4} * 16 * kDotChains};
}

ComputeLoop amx_bf16_loop() {
  if (!has_amx_bf16()) return {};
  // Each of the 4 products adds 32 products to each of 16 x 16 sums.
  return {"amx_bf16", tile_chains, std::int64_t{4} * 2 * 16 * 16 * 32};
}
#else
ComputeLoop avx512_bf16_loop() { return {}; }
ComputeLoop amx_bf16_loop() { return {}; }
#endif

}  // namespace pycnn::cpu
