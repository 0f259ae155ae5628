#include "core/bfloat16_units.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pycnn {
#if defined(__x86_64__)
namespace {

constexpr bool has_bits(unsigned word, unsigned bits) noexcept { return (word & bits) == bits; }

// Which registers the operating system saves (XCR0); 0 where it cannot be asked.
unsigned saved_registers() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsxsave = 1u << 27;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || !has_bits(c, kOsxsave)) return 0;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Linux grants the 8 KiB of tile registers to a process that asks; the answer holds for all its
// threads and its children.
bool tiles_permitted() noexcept {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool find_amx_bf16() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kTileState = 3u << 17, kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if (!has_bits(saved_registers(), kTileState)) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || !has_bits(d, kAmxBf16 | kAmxTile))
    return false;
  return tiles_permitted();
}

}  // namespace

bool has_avx512_bf16() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kZmmState = 0xE6, kAvx512F = 1u << 16, kAvx512Bf16 = 1u << 5;
  if (!has_bits(saved_registers(), kZmmState)) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || !has_bits(b, kAvx512F)) return false;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && has_bits(a, kAvx512Bf16);
}

bool has_amx_bf16() noexcept {
  static const bool found = find_amx_bf16();
  return found;
}
#else
bool has_avx512_bf16() noexcept { return false; }
bool has_amx_bf16() noexcept { return false; }
#endif

}  // namespace pycnn
