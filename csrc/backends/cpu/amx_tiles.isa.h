#pragma once
#include <immintrin.h>

#include <cstdint>

// The tiles of AMX as the loops of bfloat16 use them: 0 to 3 are sums, 4 and 5 rows, 6 and 7
// columns.
#define PYCNN_INLINE static inline __attribute__((always_inline))

namespace pycnn::cpu::amx {
namespace {

constexpr int kTileRows = 16, kTileRowBytes = 64;

// As LDTILECFG reads it.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Sums are 16 x 16; the operands have `pairs` pairs.
void configure(std::int64_t pairs) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = kTileRowBytes;
    config.rows[i] = kTileRows;
  }
  config.row_bytes[4] = config.row_bytes[5] = static_cast<std::uint16_t>(4 * pairs);
  config.rows[6] = config.rows[7] = static_cast<std::uint8_t>(pairs);
  // The intrinsic does not tell the compiler that it reads the whole of it.
  __asm__ volatile("" ::: "memory");
  _tile_loadconfig(&config);
  __asm__ volatile("" ::: "memory");
}

}  // namespace
}  // namespace pycnn::cpu::amx
