#pragma once
#include <cstdint>

namespace pycnn {
struct DeviceQueue;
}

// Muon's update of a float32 matrix; the formula stands at ops::MuonUpdate. Learning rate and
// factor are read on the device; where that is below 0, nothing
// changes. Results may lie on the inputs that they replace.
namespace pycnn::cuda {

struct MuonParams {
  const float* parameter;  // (first, rest)
  const float* gradient;
  const float* learning_rate;
  const float* velocity;
  const float* factor;  // null: 1
  float* new_parameter;
  float* new_velocity;
  double momentum, weight_decay, rate_scale;
  bool nesterov;
  std::int64_t iterations;
  std::int64_t first, rest;
};
std::int64_t muon_scratch_bytes(std::int64_t first, std::int64_t rest);
void muon(DeviceQueue& queue, const MuonParams& params, void* scratch);

}  // namespace pycnn::cuda
