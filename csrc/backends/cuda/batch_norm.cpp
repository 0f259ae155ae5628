#include "backends/cuda/batch_norm.h"

#include <utility>

#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

const float* vector_of(const KernelArgs& args, std::size_t input) {
  return args.inputs[input].as<const float>();
}

std::int64_t scratch_of(const TensorSpec& spec) {
  return batch_norm_scratch_bytes(rows_of(spec), channels_of(spec));
}

// Outputs batch_mean, batch_inv_std and the running ones begin with `first`.
StatisticsParams statistics_of(const KernelArgs& args, double eps, double momentum,
                               std::size_t first) {
  const TensorSpec& spec = *args.inputs[0].spec;
  StatisticsParams p{};
  p.input = args.inputs[0].data;
  p.scale = vector_of(args, 1);
  p.shift = vector_of(args, 2);
  p.running_mean = vector_of(args, 3);
  p.running_var = vector_of(args, 4);
  p.batch_mean = args.outputs[first].as<float>();
  p.batch_inv_std = args.outputs[first + 1].as<float>();
  p.new_running_mean = args.outputs[first + 2].as<float>();
  p.new_running_var = args.outputs[first + 3].as<float>();
  p.eps = eps;
  p.momentum = momentum;
  p.rows = rows_of(spec);
  p.channels = channels_of(spec);
  p.input_pitch = args.inputs[0].pitch();
  return p;
}

ApplyParams apply_of(const KernelArgs& args, const float* mean, const float* factor,
                     const float* offset) {
  const TensorSpec& spec = *args.inputs[0].spec;
  ApplyParams p{};
  p.input = args.inputs[0].data;
  p.mean = mean;
  p.factor = factor;
  p.offset = offset;
  p.output = args.outputs[0].data;
  p.rows = rows_of(spec);
  p.channels = channels_of(spec);
  p.input_pitch = args.inputs[0].pitch();
  p.output_pitch = args.outputs[0].pitch();
  return p;
}

GradientParams gradient_of(const KernelArgs& args, std::size_t grad_output) {
  const TensorSpec& spec = *args.inputs[0].spec;
  GradientParams p{};
  p.input = args.inputs[0].data;
  p.grad_output = args.inputs[grad_output].data;
  p.scale = vector_of(args, 1);
  p.mean = vector_of(args, 2);
  p.inv_std = vector_of(args, 3);
  p.through_statistics = true;
  p.grad_input = args.outputs[0].data;
  p.grad_scale = args.outputs[1].as<float>();
  p.grad_shift = args.outputs[2].as<float>();
  p.rows = rows_of(spec);
  p.channels = channels_of(spec);
  p.input_pitch = args.inputs[0].pitch();
  p.grad_output_pitch = args.inputs[grad_output].pitch();
  p.grad_input_pitch = args.outputs[0].pitch();
  p.sums = args.inputs.size() > grad_output + 1 ? vector_of(args, grad_output + 1) : nullptr;
  return p;
}

// Vectors of the channels come first in scratch, aligned for what follows.
float* after_vectors(const KernelArgs& args, std::int64_t channels, std::int64_t vectors) {
  return reinterpret_cast<float*>(args.scratch) + 2 * vectors * channels;
}

void run_train(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::BatchNormTrain>(args);
  StatisticsParams p = statistics_of(args, op.eps, op.momentum, 1);
  p.factor = reinterpret_cast<float*>(args.scratch);
  p.offset = p.factor + p.channels;
  const Image image = image_of(args.inputs[0]);
  batch_norm_statistics(queue_of(args), image, p, after_vectors(args, p.channels, 1));
  batch_norm_apply(queue_of(args), image, apply_of(args, p.batch_mean, p.factor, p.offset));
}

void run_statistics(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::BatchNormStatistics>(args);
  StatisticsParams p = statistics_of(args, op.eps, op.momentum, 0);
  p.factor = args.outputs[4].as<float>();
  p.offset = args.outputs[5].as<float>();
  if (args.inputs.size() > 5) {
    p.moments = vector_of(args, 5);
    p.moments_pitch = args.inputs[5].pitch();
  }
  batch_norm_statistics(queue_of(args), image_of(args.inputs[0]), p, args.scratch);
}

void run_apply(const KernelArgs& args) noexcept {
  const Epilogue& epilogue = op_of<ops::BatchNormApply>(args).epilogue;
  ApplyParams p = apply_of(args, vector_of(args, 1), vector_of(args, 2), vector_of(args, 3));
  if (epilogue.residual) {
    p.residual = args.inputs[4].data;
    p.residual_pitch = args.inputs[4].pitch();
  }
  if (args.inputs.size() > 5) {
    p.residual_mean = vector_of(args, 5);
    p.residual_factor = vector_of(args, 6);
    p.residual_offset = vector_of(args, 7);
  }
  p.curve = curve_of(epilogue.activation, epilogue.slope);
  if (epilogue.signs) p.signs = args.outputs[1].as<std::uint8_t>();
  batch_norm_apply(queue_of(args), image_of(args.inputs[0]), p);
}

void run_train_grad(const KernelArgs& args) noexcept {
  batch_norm_gradient(queue_of(args), image_of(args.inputs[0]), gradient_of(args, 4), args.scratch);
}

void run_apply_grad(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::BatchNormApplyGrad>(args);
  GradientParams p = gradient_of(args, 6);
  p.curve = curve_of(op.activation, op.slope);
  p.factor = vector_of(args, 4);
  p.offset = vector_of(args, 5);
  batch_norm_gradient(queue_of(args), image_of(args.inputs[0]), p, args.scratch);
}

void run_inference(const KernelArgs& args) noexcept {
  auto* const factor = reinterpret_cast<float*>(args.scratch);
  const ApplyParams p = apply_of(args, vector_of(args, 3), factor, vector_of(args, 2));
  inference_factors(queue_of(args), vector_of(args, 1), vector_of(args, 4),
                    op_of<ops::BatchNormInference>(args).eps, nullptr, factor, p.channels);
  batch_norm_apply(queue_of(args), image_of(args.inputs[0]), p);
}

void run_inference_grad(const KernelArgs& args) noexcept {
  GradientParams p = gradient_of(args, 4);
  auto* const inv_std = reinterpret_cast<float*>(args.scratch);
  inference_factors(queue_of(args), nullptr, vector_of(args, 3),
                    op_of<ops::BatchNormInferenceGrad>(args).eps, inv_std, nullptr, p.channels);
  p.inv_std = inv_std;
  p.through_statistics = false;
  batch_norm_gradient(queue_of(args), image_of(args.inputs[0]), p,
                      after_vectors(args, p.channels, 1));
}

void run_fold(const KernelArgs& args) noexcept {
  FoldParams p{};
  p.weight = vector_of(args, 0);
  p.scale = vector_of(args, 1);
  p.shift = vector_of(args, 2);
  p.running_mean = vector_of(args, 3);
  p.running_var = vector_of(args, 4);
  p.bias = args.inputs.size() > 5 ? vector_of(args, 5) : nullptr;
  p.folded_weight = args.outputs[0].as<float>();
  p.folded_bias = args.outputs[1].as<float>();
  p.eps = op_of<ops::FoldBatchNorm>(args).eps;
  p.channels = args.inputs[0].dim(0);
  p.per_channel = p.channels > 0 ? count_of(args.inputs[0]) / p.channels : 0;
  fold_batch_norm(queue_of(args), p);
}

// Of a kernel that takes images, those of the bits, and makes one, its first result.
Choice take(KernelFunction run, const Problem& problem, std::uint32_t images,
            std::int64_t scratch_bytes, std::vector<std::uint32_t> in_place = {}) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return strided({run, scratch(scratch_bytes), std::move(in_place)}, images, 1);
}
constexpr std::uint32_t kInput = 1u << 0, kFifth = 1u << 4, kSixth = 1u << 5, kSeventh = 1u << 6;
// A thread reads those of a channel before it writes them.
constexpr std::uint32_t kRunningMean = 1u << 3, kRunningVar = 1u << 4;

// Two vectors of channels before what scratch_of counts.
std::int64_t with_vectors(const TensorSpec& spec) {
  return 2 * channels_of(spec) * static_cast<std::int64_t>(sizeof(float)) + scratch_of(spec);
}

}  // namespace

Choice select(const ops::BatchNormTrain&, const Problem& problem) {
  return take(run_train, problem, kInput, with_vectors(problem.inputs[0]),
              {0, 0, 0, kRunningMean, kRunningVar});
}
Choice select(const ops::BatchNormTrainGrad&, const Problem& problem) {
  return take(run_train_grad, problem, kInput | kFifth, scratch_of(problem.inputs[0]));
}
Choice select(const ops::BatchNormStatistics&, const Problem& problem) {
  // Moments may be those of some channels.
  const std::uint32_t parts = problem.inputs.size() > 5 ? kInput | kSixth : kInput;
  return strided(take(run_statistics, problem, parts, scratch_of(problem.inputs[0]),
                      {0, 0, kRunningMean, kRunningVar}),
                 parts, 0);
}
Choice select(const ops::BatchNormApply& op, const Problem& problem) {
  if (!has_curve(op.epilogue.activation)) return refuse(kNoCurve);
  const std::uint32_t images = op.epilogue.residual ? kInput | kFifth : kInput;
  return take(run_apply, problem, images, 0, {images});
}
Choice select(const ops::BatchNormApplyGrad& op, const Problem& problem) {
  if (!has_curve(op.activation)) return refuse(kNoCurve);
  return take(run_apply_grad, problem, kInput | kSeventh, scratch_of(problem.inputs[0]));
}
Choice select(const ops::BatchNormInference&, const Problem& problem) {
  return take(run_inference, problem, kInput, with_vectors(problem.inputs[0]));
}
Choice select(const ops::BatchNormInferenceGrad&, const Problem& problem) {
  return take(run_inference_grad, problem, kInput | kFifth, with_vectors(problem.inputs[0]));
}
Choice select(const ops::FoldBatchNorm&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return {run_fold};
}

}  // namespace pycnn::cuda
