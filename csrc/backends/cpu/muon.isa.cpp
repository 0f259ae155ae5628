#include "backends/cpu/muon.h"

#include "backends/cpu/reduce.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

void direction(const MuonDirection& step) {
  const Vec factor = broadcast(step.factor), momentum = broadcast(step.momentum);
  for_each_vector(step.n, [&](std::int64_t i, int lanes) {
    const Vec g = factor * load_lanes(step.gradient + i, lanes);
    const Vec v = fma(momentum, load_lanes(step.velocity + i, lanes), g);
    store_lanes(step.new_velocity + i, v, lanes);
    store_lanes(step.direction + i, step.nesterov ? fma(momentum, v, g) : v, lanes);
  });
}

void combine(float a, const float* x, float b, const float* y, float* out, std::int64_t n) {
  const Vec av = broadcast(a), bv = broadcast(b);
  for_each_vector(n, [&](std::int64_t i, int lanes) {
    const Vec scaled = bv * load_lanes(y + i, lanes);
    store_lanes(out + i, fma(av, load_lanes(x + i, lanes), scaled), lanes);
  });
}

}  // namespace

extern const MuonFunctions kMuon = {direction, combine, outer_tiles};

}  // namespace pycnn::cpu::PYCNN_ISA
