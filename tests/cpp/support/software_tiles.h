#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// AMX's tile instructions in software, included before pair_products_amx.isa.cpp so that its loops
// run, and are looked at by sanitizers, where no processor has the unit. What the processor would
// answer with an invalid-opcode exception ends the program.
// Source: Intel Architecture Instruction Set Extensions Programming Reference, chapter 3 (AMX).
namespace pycnn::testing::tiles {

constexpr int kTiles = 8, kEntries = 16, kRows = 16, kRowBytes = 64;

struct Tile {
  std::uint8_t rows;
  std::uint16_t row_bytes;
  alignas(64) unsigned char data[kRows][kRowBytes];
};

struct Unit {
  bool configured;
  Tile tiles[kTiles];
};

static thread_local Unit unit;

[[noreturn]] static void refuse(const char* what) {
  std::fprintf(stderr, "tiles: %s\n", what);
  std::abort();
}

static inline Tile& tile_at(int index) {
  if (!unit.configured) refuse("no configuration is loaded");
  if (index < 0 || index >= kTiles) refuse("there is no such tile");
  Tile& tile = unit.tiles[index];
  if (tile.rows == 0 || tile.row_bytes == 0) refuse("this tile is not configured");
  return tile;
}

static inline void clear(Tile& tile) { std::memset(tile.data, 0, sizeof tile.data); }

static inline void load_config(const void* from) {
  const auto* bytes = static_cast<const std::uint8_t*>(from);
  if (bytes[0] != 1 || bytes[1] != 0) refuse("expected palette 1 and start row 0");
  for (int i = 2; i < 16; ++i)
    if (bytes[i] != 0) refuse("reserved bytes are not zero");
  for (int i = 0; i < kEntries; ++i) {
    Tile tile = {};
    std::memcpy(&tile.row_bytes, bytes + 16 + 2 * i, sizeof tile.row_bytes);
    tile.rows = bytes[48 + i];
    if (tile.rows > kRows || tile.row_bytes > kRowBytes) refuse("a tile is too large");
    if ((tile.rows == 0) != (tile.row_bytes == 0)) refuse("a tile has rows or bytes, not both");
    if (i < kTiles)
      unit.tiles[i] = tile;
    else if (tile.rows != 0)
      refuse("there are eight tiles");
  }
  unit.configured = true;
}

static inline void release() { unit.configured = false; }

static inline void zero(int index) { clear(tile_at(index)); }

static inline void load(int index, const void* base, std::int64_t stride) {
  Tile& tile = tile_at(index);
  clear(tile);
  const auto* from = static_cast<const unsigned char*>(base);
  for (int r = 0; r < tile.rows; ++r) std::memcpy(tile.data[r], from + r * stride, tile.row_bytes);
}

static inline void store(int index, void* base, std::int64_t stride) {
  const Tile& tile = tile_at(index);
  auto* to = static_cast<unsigned char*>(base);
  for (int r = 0; r < tile.rows; ++r) std::memcpy(to + r * stride, tile.data[r], tile.row_bytes);
}

// Sums of the first and of the second ones of the pairs, added to each other, then to the tile.
static inline void multiply_pairs(int sums_index, int a_index, int b_index) {
  Tile& sums = tile_at(sums_index);
  const Tile &a = tile_at(a_index), &b = tile_at(b_index);
  if (sums_index == a_index || sums_index == b_index || a_index == b_index)
    refuse("a product takes three different tiles");
  if (sums.row_bytes % 4 != 0) refuse("a row of sums is not made of floats");
  if (sums.rows != a.rows || sums.row_bytes != b.row_bytes || a.row_bytes != 4 * b.rows)
    refuse("the shapes of a product do not match");
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  for (int m = 0; m < a.rows; ++m) {
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int k = 0; k < b.rows; ++k) {
      std::int32_t pair;
      std::memcpy(&pair, a.data[m] + 4 * k, sizeof pair);
      const __m512i x = _mm512_set1_epi32(pair), y = _mm512_load_si512(b.data[k]);
      even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                             _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), even);
      odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, upper)),
                            _mm512_castsi512_ps(_mm512_and_si512(y, upper)), odd);
    }
    const __m512 sum = _mm512_add_ps(_mm512_load_ps(sums.data[m]), _mm512_add_ps(even, odd));
    _mm512_store_ps(sums.data[m], sum);
  }
}

}  // namespace pycnn::testing::tiles

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(from) pycnn::testing::tiles::load_config(from)
#define _tile_release() pycnn::testing::tiles::release()
#define _tile_zero(tile) pycnn::testing::tiles::zero(tile)
#define _tile_loadd(tile, base, stride) pycnn::testing::tiles::load(tile, base, stride)
#define _tile_stored(tile, base, stride) pycnn::testing::tiles::store(tile, base, stride)
#define _tile_dpbf16ps(sums, a, b) pycnn::testing::tiles::multiply_pairs(sums, a, b)
