#include "backends/cpu/peak_loops.h"

#include "backends/cpu/simd.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

// A multiply-add takes 4 cycles and two start in each; the baseline's multiplication and addition
// together take 8. Two registers hold the constants.
constexpr int kChains = kVectorRegisters > 16 ? 24 : 13;
constexpr int kVectorBytes = kLanes * 4;
constexpr int kUnroll = static_cast<int>(kPeakBlockBytes) / kVectorBytes;

float multiply_add(std::int64_t rounds) {
  Vec chain[kChains];
  // All different: equal ones would be computed once. They come near 2, so no value is subnormal.
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) chain[i] = broadcast(1.0f + 0.01f * static_cast<float>(i));
  const Vec half = broadcast(0.5f), one = broadcast(1.0f);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) chain[i] = fma(chain[i], half, one);
  }
  Vec sum = zero();
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sum = sum + chain[i];
  return sum[0];
}

PYCNN_INLINE IVec load_bits(const char* p) {
  IVec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

std::int32_t read(const void* from, std::int64_t bytes) {
  const char* p = static_cast<const char*>(from);
  IVec sum[8] = {};
  for (const char* const end = p + bytes; p < end; p += kPeakBlockBytes) {
#pragma GCC unroll 32
    for (int i = 0; i < kUnroll; ++i) sum[i % 8] = sum[i % 8] ^ load_bits(p + i * kVectorBytes);
  }
  IVec all = {};
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) all = all ^ sum[i];
  return all[0];
}

// With a change of the bits on the way: a plain copy would be taken for memcpy.
void copy(const void* from, void* to, std::int64_t bytes) {
  const char* p = static_cast<const char*>(from);
  char* q = static_cast<char*>(to);
  const IVec ones = IVec{} - 1;
  for (const char* const end = p + bytes; p < end; p += kPeakBlockBytes, q += kPeakBlockBytes) {
#pragma GCC unroll 32
    for (int i = 0; i < kUnroll; ++i) {
      const IVec v = load_bits(p + i * kVectorBytes) ^ ones;
      __builtin_memcpy(q + i * kVectorBytes, &v, sizeof v);
    }
  }
}

}  // namespace

extern const PeakLoops kPeakLoops = {multiply_add, std::int64_t{2} * kChains* kLanes, read, copy};

}  // namespace pycnn::cpu::PYCNN_ISA
