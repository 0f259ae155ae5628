#include "backends/cuda/optimizer.h"

#include <algorithm>
#include <utility>

#include "backends/cuda/glue.h"
#include "backends/cuda/softmax.h"

namespace pycnn::cuda {
namespace {

const float* factor_of(const KernelArgs& args, bool clipped) {
  return clipped ? args.inputs.back().as<const float>() : nullptr;
}

void run_sgd(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::SgdUpdate>(args);
  const bool has_velocity = args.outputs.size() > 1;
  SgdParams p{};
  p.parameter = args.inputs[0].as<const float>();
  p.gradient = args.inputs[1].as<const float>();
  p.learning_rate = args.inputs[2].as<const float>();
  p.velocity = has_velocity ? args.inputs[3].as<const float>() : nullptr;
  p.factor = factor_of(args, op.clipped);
  p.new_parameter = args.outputs[0].as<float>();
  p.new_velocity = has_velocity ? args.outputs[1].as<float>() : nullptr;
  p.rate_scale = static_cast<float>(op.rate_scale);
  p.momentum = static_cast<float>(op.momentum);
  p.weight_decay = static_cast<float>(op.weight_decay);
  p.nesterov = op.nesterov;
  p.count = count_of(args.outputs[0]);
  sgd(queue_of(args), p);
}

void run_adam(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::AdamUpdate>(args);
  AdamParams p{};
  p.parameter = args.inputs[0].as<const float>();
  p.gradient = args.inputs[1].as<const float>();
  p.learning_rate = args.inputs[2].as<const float>();
  p.step = args.inputs[3].as<const std::int64_t>();
  p.mean = args.inputs[4].as<const float>();
  p.variance = args.inputs[5].as<const float>();
  p.factor = factor_of(args, op.clipped);
  p.new_parameter = args.outputs[0].as<float>();
  p.new_mean = args.outputs[1].as<float>();
  p.new_variance = args.outputs[2].as<float>();
  p.beta1 = op.beta1;
  p.beta2 = op.beta2;
  p.eps = op.eps;
  p.weight_decay = op.weight_decay;
  p.rate_scale = op.rate_scale;
  p.decoupled = op.decoupled;
  p.count = count_of(args.outputs[0]);
  adam(queue_of(args), p);
}

void run_ema(const KernelArgs& args) noexcept {
  ema(queue_of(args), {args.inputs[0].as<const float>(), args.inputs[1].as<const float>(),
                       args.inputs[2].as<const std::int64_t>(), args.outputs[0].as<float>(),
                       op_of<ops::EmaUpdate>(args).decay, count_of(args.outputs[0])});
}

// Scratch: a sum for each gradient, then the pieces of the largest.
void run_clip(const KernelArgs& args) noexcept {
  auto* const totals = reinterpret_cast<double*>(args.scratch);
  void* const pieces = totals + args.inputs.size();
  for (std::size_t i = 0; i < args.inputs.size(); ++i)
    sum_of_squares(queue_of(args), args.inputs[i].as<const float>(), count_of(args.inputs[i]),
                   totals + i, pieces);
  clip_factor(queue_of(args), totals, static_cast<int>(args.inputs.size()),
              op_of<ops::ClipFactor>(args).max_norm, args.outputs[0].as<float>(),
              args.outputs[1].as<float>());
}

void run_loss_scale(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::LossScale>(args);
  loss_scale(queue_of(args), {args.inputs[0].as<const float>(), args.inputs[1].as<const float>(),
                              args.inputs[2].as<const std::int64_t>(), args.outputs[0].as<float>(),
                              args.outputs[1].as<float>(), args.outputs[2].as<float>(),
                              args.outputs[3].as<std::int64_t>(), op.growth_interval, op.max_norm});
}

void run_commit(const KernelArgs& args) noexcept {
  const TensorView& output = args.outputs[0];
  commit(queue_of(args), item_size(output.spec->dtype), args.inputs[0].data, args.inputs[1].data,
         args.inputs[2].as<const float>(), output.data, count_of(output));
}

Choice take(KernelFunction run, const Problem& problem, std::vector<std::uint32_t> in_place) {
  if (const char* const reason = unfit_type(problem, true)) return refuse(reason);
  return {run, 0, std::move(in_place)};
}

}  // namespace

Choice select(const ops::SgdUpdate&, const Problem& problem) {
  return take(run_sgd, problem, {1u << 0, 1u << 3});
}
Choice select(const ops::AdamUpdate&, const Problem& problem) {
  return take(run_adam, problem, {1u << 0, 1u << 4, 1u << 5});
}
Choice select(const ops::EmaUpdate&, const Problem& problem) {
  return take(run_ema, problem, {1u << 0});
}

Choice select(const ops::LossScale&, const Problem& problem) {
  return take(run_loss_scale, problem, {0, 1u << 0, 1u << 1, 1u << 2});
}

Choice select(const ops::Commit&, const Problem& problem) {
  if (problem.inputs[2].dtype != DType::kFloat32) return refuse("the factor is not float32");
  return {run_commit, 0, {1u << 0 | 1u << 1}};
}

Choice select(const ops::ClipFactor&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem, true)) return refuse(reason);
  std::int64_t bytes = 0;
  for (const TensorSpec& spec : problem.inputs)
    bytes = std::max(bytes, total_scratch_bytes(count_of(spec)));
  const auto sums = static_cast<std::int64_t>(problem.inputs.size() * sizeof(double));
  return {run_clip, scratch(sums + bytes)};
}

}  // namespace pycnn::cuda
