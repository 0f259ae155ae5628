#include "backends/cuda/muon.h"

#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

void run_muon(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::MuonUpdate>(args);
  MuonParams p{};
  p.parameter = args.inputs[0].as<const float>();
  p.gradient = args.inputs[1].as<const float>();
  p.learning_rate = args.inputs[2].as<const float>();
  p.velocity = args.inputs[3].as<const float>();
  p.factor = op.clipped ? args.inputs.back().as<const float>() : nullptr;
  p.new_parameter = args.outputs[0].as<float>();
  p.new_velocity = args.outputs[1].as<float>();
  p.momentum = op.momentum;
  p.weight_decay = op.weight_decay;
  p.rate_scale = op.rate_scale;
  p.nesterov = op.nesterov;
  p.iterations = op.iterations;
  p.first = args.inputs[0].dim(0);
  p.rest = p.first > 0 ? count_of(args.inputs[0]) / p.first : 0;
  muon(queue_of(args), p, args.scratch);
}

}  // namespace

Choice select(const ops::MuonUpdate&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem, true)) return refuse(reason);
  const std::int64_t first = problem.inputs[0].shape[0];
  const std::int64_t rest = first > 0 ? count_of(problem.inputs[0]) / first : 0;
  return {run_muon, scratch(muon_scratch_bytes(first, rest)), {1u << 0, 1u << 3}};
}

}  // namespace pycnn::cuda
