#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

// The checksum of checkpoint files: 64 bits against accidents (bit rot, cut or mixed-up blocks),
// not against intent. Four lanes take eight bytes each in turn. Every step maps a lane one to one,
// so a change confined to one word always changes the result. Part of the file format: it never
// changes.
namespace pycnn {

inline std::uint64_t fold64_mix(std::uint64_t state, std::uint64_t word) noexcept {
  return std::rotl((state ^ word) * 0x9FB21C651E98DF25u, 31);
}

inline std::uint64_t fold64(const void* data, std::size_t bytes, std::uint64_t seed) noexcept {
  const auto* next = static_cast<const unsigned char*>(data);
  std::uint64_t lanes[4] = {seed + 0x243F6A8885A308D3u, seed + 0x13198A2E03707344u,
                            seed + 0xA4093822299F31D0u,
                            seed + 0x082EFA98EC4E6C89u};  // digits of pi
  std::size_t left = bytes;
  for (; left >= 32; left -= 32, next += 32) {
    std::uint64_t words[4];
    std::memcpy(words, next, sizeof(words));
    for (int i = 0; i < 4; ++i) lanes[i] = fold64_mix(lanes[i], words[i]);
  }
  if (left > 0) {
    std::uint64_t words[4] = {};
    std::memcpy(words, next, left);
    for (int i = 0; i < 4; ++i) lanes[i] = fold64_mix(lanes[i], words[i]);
  }
  std::uint64_t result = bytes;
  for (const std::uint64_t lane : lanes) result = fold64_mix(result, lane ^ (lane >> 29));
  return result ^ (result >> 32);
}

}  // namespace pycnn
