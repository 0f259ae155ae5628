#pragma once
#include <cstdint>

// Contract of peak_loops.isa.cpp and peak_bfloat16.cpp: loops that keep one part of a core busy.
namespace pycnn::cpu {

// Bytes that the loops over memory handle at a time.
constexpr std::int64_t kPeakBlockBytes = 512;

struct PeakLoops {
  // Independent chains of multiply-adds in registers, enough of them to hide the latency. The
  // result depends on all, so none is left out.
  float (*multiply_add)(std::int64_t rounds);
  std::int64_t flops_per_round;
  // Aligned buffers, whole blocks of kPeakBlockBytes. The loads are added up by bits.
  std::int32_t (*read)(const void* from, std::int64_t bytes);
  void (*copy)(const void* from, void* to, std::int64_t bytes);
};

namespace baseline {
extern const PeakLoops kPeakLoops;
}
namespace avx2 {
extern const PeakLoops kPeakLoops;
}
namespace avx512 {
extern const PeakLoops kPeakLoops;
}

// A loop of multiply-adds as above.
struct ComputeLoop {
  const char* unit = nullptr;
  float (*multiply_add)(std::int64_t rounds) = nullptr;
  std::int64_t flops_per_round = 0;
};
// Multiply-adds of bfloat16 with float32 sums, by units that not every AVX-512 machine has: null
// functions where this machine, its operating system or this build does not have the unit.
// Asking for AMX gets the process the permission to use its registers.
ComputeLoop avx512_bf16_loop();
ComputeLoop amx_bf16_loop();

}  // namespace pycnn::cpu
