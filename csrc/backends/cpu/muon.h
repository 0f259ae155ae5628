#pragma once
#include <cstdint>

#include "backends/cpu/gemm.h"

// Contract of muon.isa.cpp: unaligned arrays of n floats.
namespace pycnn::cpu {

struct MuonDirection {
  const float* gradient;
  const float* velocity;
  float* new_velocity;  // may be velocity
  float* direction;
  std::int64_t n;
  float factor, momentum;
  bool nesterov;
};

struct MuonFunctions {
  void (*direction)(const MuonDirection& step);
  // out[i] = a * x[i] + b * y[i]; out may be x or y.
  void (*combine)(float a, const float* x, float b, const float* y, float* out, std::int64_t n);
  void (*outer_tiles)(const OuterTiles& job);
};

namespace baseline {
extern const MuonFunctions kMuon;
}
namespace avx2 {
extern const MuonFunctions kMuon;
}
namespace avx512 {
extern const MuonFunctions kMuon;
}

}  // namespace pycnn::cpu
