#include "backends/cpu/conv2d_norm_input.h"

#include <algorithm>
#include <array>
#include <optional>

#include "backends/cpu/batch_norm_matrix.h"
#include "backends/cpu/conv2d_measure.h"

namespace pycnn::cpu {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kMostNormInputs = 8;

// Inputs of BatchNormApplyGrad and BatchNormTrainGrad with sums.
constexpr std::size_t kApplyGradInputs = 8, kTrainGradInputs = 6;

// Which inputs they are of BatchNormApply and BatchNormApplyGrad.
constexpr std::size_t kResidual = 4, kGradOutput = 6;

bool is_float(Specs specs) {
  return std::all_of(specs.begin(), specs.end(),
                     [](const TensorSpec& spec) { return spec.dtype == DType::kFloat32; });
}

}  // namespace

bool NormInputPlan::take(Kernel& kernel, const Neighbour& norm, std::size_t own_inputs,
                         std::size_t own_outputs) {
  if (wanted() || norm.inputs.size() > kMostNormInputs) return false;
  if (!is_float(norm.inputs) || !is_float(norm.outputs)) return false;
  const auto set_activation = [&](ActivationKind which, double at) {
    activation = static_cast<std::int64_t>(which), slope = at;
  };
  if (const auto* apply = std::get_if<ops::BatchNormApply>(norm.op)) {
    kind = kApply;
    if (apply->epilogue.residual) second = kResidual;
    if (norm.inputs.size() > kResidual + 1) residual_norm = kResidual + 1;
    set_activation(apply->epilogue.activation, apply->epilogue.slope);
  } else if (const auto* grad = std::get_if<ops::BatchNormApplyGrad>(norm.op)) {
    if (norm.inputs.size() != kApplyGradInputs) return false;
    kind = kGrad, second = kGradOutput;
    set_activation(grad->activation, grad->slope);
    gated = grad->activation != ActivationKind::kIdentity;
  } else if (std::holds_alternative<ops::BatchNormTrainGrad>(*norm.op)) {
    if (norm.inputs.size() != kTrainGradInputs) return false;
    kind = kGrad, second = batch_norm::TrainGrad::kGradOutput;
    set_activation(ActivationKind::kIdentity, 0);
  } else {
    return false;
  }
  // What may throw comes first: a kernel is changed as a whole or not at all.
  kernel.in_place.reserve(std::max(kernel.in_place.size(), own_outputs) + 1);
  channels = norm.inputs[0].shape.back();
  inputs = static_cast<std::int64_t>(own_inputs), outputs = static_cast<std::int64_t>(own_outputs);
  if (kind == kGrad) {
    kernel.scratch_bytes = ceil_div(kernel.scratch_bytes, kLine) * kLine;
    offset = static_cast<std::int64_t>(kernel.scratch_bytes);
    kernel.scratch_bytes += static_cast<std::size_t>(3 * channels) * sizeof(float);
  }
  // What was one view is two now, and rows follow one another.
  kernel.strided_inputs &= ~1u;
  kernel.in_place.resize(std::max(kernel.in_place.size(), own_outputs), 0);
  // Each element is read before it is written.
  std::uint32_t in_place = 1;
  if (second >= 0) in_place |= 1u << (own_inputs + static_cast<std::size_t>(second) - 1);
  kernel.in_place.push_back(in_place);
  return true;
}

NormInput::NormInput(const NormInputPlan& plan, const KernelArgs& args,
                     const BatchNormFunctions<float>& functions) noexcept
    : plan_(plan), args_(args), functions_(functions) {
  if (!plan.wanted()) return;
  // The inputs of the batch norm but the first follow the kernel's own.
  const auto before = static_cast<std::size_t>(plan.inputs) - 1;
  const auto outputs = static_cast<std::size_t>(plan.outputs);
  first_ = channel(0);
  if (plan.second >= 0) second_ = channel(before + static_cast<std::size_t>(plan.second));
  made_ = args.outputs[outputs].as<float>();
  const auto rectifier = rectifier_of(static_cast<ActivationKind>(plan.activation), plan.slope);
  has_rectifier_ = rectifier.has_value();
  gate_.rectifier = rectifier.value_or(Rectifier{});
  if (plan.kind == NormInputPlan::kApply) {
    mean_ = channel(before + 1);
    factors_[0] = channel(before + 2), factors_[1] = channel(before + 3);
    if (plan.residual_norm >= 0) {
      const std::size_t first = before + static_cast<std::size_t>(plan.residual_norm);
      residual_norm_ = {channel(first), channel(first + 1), channel(first + 2)};
    }
    return;
  }
  mean_ = channel(before + 2);
  if (plan.gated) gate_.factor = channel(before + 4), gate_.offset = channel(before + 5);
  std::array<TensorView, kMostNormInputs> inputs;
  inputs[0] = args.inputs[0];
  const auto rest = args.inputs.subspan(before + 1);
  std::copy(rest.begin(), rest.end(), inputs.begin() + 1);
  KernelArgs norm = args;
  norm.inputs = {inputs.data(), rest.size() + 1};
  norm.outputs = args.outputs.subspan(outputs);
  auto* const coefficients = reinterpret_cast<float*>(args.scratch + plan.offset);
  const std::int64_t rows = element_count(args.inputs[0].spec->shape) / plan.channels;
  for (std::int64_t c = 0; c < plan.channels; ++c) {
    const batch_norm::Coefficients k = batch_norm::finish_gradient<batch_norm::TrainGrad, float>(
        norm, c, rows, batch_norm::known_sums<float>(norm, c));
    coefficients[c] = static_cast<float>(k.a);
    coefficients[plan.channels + c] = static_cast<float>(k.b);
    coefficients[2 * plan.channels + c] = static_cast<float>(k.c);
  }
  for (std::int64_t i = 0; i < 3; ++i) factors_[i] = coefficients + i * plan.channels;
}

KernelArgs NormInput::own() const noexcept {
  KernelArgs own = args_;
  if (!plan_.wanted()) return own;
  own.inputs = args_.inputs.first(static_cast<std::size_t>(plan_.inputs));
  own.outputs = args_.outputs.first(static_cast<std::size_t>(plan_.outputs));
  return own;
}

void NormInput::make(std::int64_t pixel, std::int64_t count) const noexcept {
  const std::int64_t at = pixel * plan_.channels;
  const float* const more = second_ != nullptr ? second_ + at : nullptr;
  if (plan_.kind == NormInputPlan::kApply)
    functions_.apply(first_ + at, more, made_ + at, count, plan_.channels,
                     {mean_, factors_[0], factors_[1]},
                     residual_norm_.mean != nullptr ? &residual_norm_ : nullptr,
                     has_rectifier_ ? &gate_.rectifier : nullptr, false);
  else
    functions_.gradient(first_ + at, more, made_ + at, count, plan_.channels, mean_, factors_[0],
                        factors_[1], factors_[2], has_rectifier_ ? &gate_ : nullptr, false);
}

}  // namespace pycnn::cpu
