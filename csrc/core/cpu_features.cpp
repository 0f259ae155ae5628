#include "core/cpu_features.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "pycnn/error.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#define PYCNN_X86 1
#else
#define PYCNN_X86 0
#endif

namespace pycnn {
namespace {

constexpr Isa kAll[] = {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512};
constexpr const char* kAccepted = "baseline, avx2, avx512";

Isa built_isa() noexcept {
#if defined(PYCNN_HAVE_AVX512)
  return Isa::kAvx512;
#elif defined(PYCNN_HAVE_AVX2)
  return Isa::kAvx2;
#else
  return Isa::kBaseline;
#endif
}

// Whether every bit of `bits` is set in `word`.
constexpr bool has(unsigned word, unsigned bits) noexcept { return (word & bits) == bits; }

Isa detect_isa() noexcept {
#if PYCNN_X86
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return Isa::kBaseline;
  constexpr unsigned kFma = 1u << 12, kMovbe = 1u << 22, kOsxsave = 1u << 27, kAvx = 1u << 28,
                     kF16c = 1u << 29;
  if (!has(c, kFma | kMovbe | kOsxsave | kAvx | kF16c)) return Isa::kBaseline;

  // The processor having wide registers is not enough: the operating system must save them.
  unsigned xcr0 = 0, xcr0_high = 0;
  __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(xcr0_high) : "c"(0));
  constexpr unsigned kYmmState = 0x06, kZmmState = 0xE6;
  if (!has(xcr0, kYmmState)) return Isa::kBaseline;

  // The compiler may use bmi, bmi2 and lzcnt in whatever it compiles for avx2.
  if (__get_cpuid(0x80000001u, &a, &b, &c, &d) == 0 || !has(c, 1u << 5)) return Isa::kBaseline;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return Isa::kBaseline;
  constexpr unsigned kBmi = 1u << 3, kAvx2 = 1u << 5, kBmi2 = 1u << 8;
  if (!has(b, kBmi | kAvx2 | kBmi2)) return Isa::kBaseline;

  constexpr unsigned kAvx512F = 1u << 16, kAvx512Dq = 1u << 17, kAvx512Cd = 1u << 28,
                     kAvx512Bw = 1u << 30;
  constexpr unsigned kAvx512Vl = 1u << 31;
  if (!has(b, kAvx512F | kAvx512Dq | kAvx512Cd | kAvx512Bw | kAvx512Vl) || !has(xcr0, kZmmState))
    return Isa::kAvx2;
  return Isa::kAvx512;
#else
  return Isa::kBaseline;
#endif
}

bool is_amd_family_25() noexcept {
#if PYCNN_X86
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kAuth = 0x68747541, kEnti = 0x69746E65, kCamd = 0x444D4163;
  if (b != kAuth || d != kEnti || c != kCamd || __get_cpuid(1, &a, &b, &c, &d) == 0) return false;
  const unsigned base = a >> 8 & 0xF, extended = a >> 20 & 0xFF;
  return base + extended == 25;
#else
  return false;
#endif
}

Isa machine_isa() noexcept {
  static const Isa isa = detect_isa();
  return isa;
}

const Isa* find_isa(std::string_view name) noexcept {
  const auto found = std::find_if(std::begin(kAll), std::end(kAll),
                                  [&](Isa isa) { return name == isa_name(isa); });
  return found == std::end(kAll) ? nullptr : found;
}

Isa cap_from_environment() {
  const char* const text = std::getenv("PYCNN_MAX_ISA");
  if (text == nullptr || *text == '\0') return Isa::kAvx512;
  const Isa* const isa = find_isa(text);
  if (isa == nullptr) {
    throw ArgumentError("PYCNN_MAX_ISA is '" + std::string(text).substr(0, 64) +
                        "', accepted are " + kAccepted);
  }
  return *isa;
}

}  // namespace

const char* isa_name(Isa isa) noexcept {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kBaseline:
      break;
  }
  return "baseline";
}

Isa best_isa() { return std::min({machine_isa(), built_isa(), cap_from_environment()}); }

bool multiplies_512_bits_in_halves() noexcept {
  static const bool found = is_amd_family_25();
  return found;
}

Isa parse_isa(std::string_view name) {
  if (name == "auto") return best_isa();
  const Isa* const isa = find_isa(name);
  if (isa == nullptr) {
    throw ArgumentError("isa '" + std::string(name.substr(0, 64)) +
                        "' is unknown, accepted are auto, " + kAccepted);
  }
  const std::string refused = "isa '" + std::string(name) + "' is not available: ";
  if (*isa > built_isa())
    throw DeviceError(refused + "this build contains up to " + isa_name(built_isa()));
  if (*isa > machine_isa())
    throw DeviceError(refused + "this machine offers up to " + isa_name(machine_isa()));
  if (*isa > cap_from_environment()) {
    throw DeviceError(refused + "PYCNN_MAX_ISA allows up to " + isa_name(cap_from_environment()));
  }
  return *isa;
}

std::string cpu_model_name() {
  std::string name;
#if PYCNN_X86
  unsigned words[12] = {};
  if (static_cast<unsigned>(__get_cpuid_max(0x80000000u, nullptr)) >= 0x80000004u) {
    for (unsigned leaf = 0; leaf < 3; ++leaf) {
      unsigned* const w = words + 4 * leaf;
      __get_cpuid(0x80000002u + leaf, &w[0], &w[1], &w[2], &w[3]);
    }
    char text[sizeof(words) + 1] = {};
    std::memcpy(text, words, sizeof(words));
    name = text;
  }
#endif
  if (name.find_first_not_of(' ') == std::string::npos) {
    std::ifstream cpuinfo("/proc/cpuinfo");
    for (std::string line; std::getline(cpuinfo, line);) {
      if (line.rfind("model name", 0) != 0 && line.rfind("Model", 0) != 0) continue;
      const auto colon = line.find(':');
      if (colon != std::string::npos) name = line.substr(colon + 1);
      break;
    }
  }
  const auto begin = name.find_first_not_of(' ');
  if (begin == std::string::npos) return "unknown";
  return name.substr(begin, name.find_last_not_of(' ') - begin + 1);
}

}  // namespace pycnn
