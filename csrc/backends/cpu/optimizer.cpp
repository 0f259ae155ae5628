#include "backends/cpu/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/optimizer_steps.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// Every update is element-wise, so each tensor may be written where it was read. The coefficients
// are worked out in float64, once per call.
namespace pycnn::cpu {
namespace {

double factor_of(const KernelArgs& args, bool clipped) noexcept {
  return clipped ? scalar_of(args.inputs.back()) : 1.0;
}

// Whether the step changes nothing: then output o, for each of `from`, is its input from[o].
bool keeps(const KernelArgs& args, double factor,
           std::initializer_list<std::size_t> from) noexcept {
  if (!(factor < 0.0)) return false;
  std::size_t o = 0;
  for (const std::size_t i : from) {
    if (o == args.outputs.size()) break;
    keep_tensor(args.inputs[i], args.outputs[o++]);
  }
  return true;
}

// ---- SGD

template <const OptimizerFunctions& Functions>
void vector_sgd(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::SgdUpdate>(args);
  const bool has_velocity = args.outputs.size() > 1;
  const double factor = factor_of(args, op.clipped);
  if (keeps(args, factor, {0, 3})) return;
  const SgdStep all = sgd_step(op, scalar_of(args.inputs[2]), factor);
  parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                  [&](std::int64_t begin, std::int64_t end) {
                    SgdStep step = all;
                    step.parameter = args.inputs[0].as<const float>() + begin;
                    step.gradient = args.inputs[1].as<const float>() + begin;
                    step.new_parameter = args.outputs[0].as<float>() + begin;
                    if (has_velocity) {
                      step.velocity = args.inputs[3].as<const float>() + begin;
                      step.new_velocity = args.outputs[1].as<float>() + begin;
                    }
                    step.n = end - begin;
                    Functions.sgd(step);
                  });
}

void reference_sgd(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::SgdUpdate>(args);
  const bool has_velocity = args.outputs.size() > 1;
  if (keeps(args, factor_of(args, op.clipped), {0, 3})) return;
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T rate = static_cast<T>(scalar_of(args.inputs[2]) * op.rate_scale);
    const T factor = static_cast<T>(factor_of(args, op.clipped));
    const T decay = static_cast<T>(op.weight_decay), momentum = static_cast<T>(op.momentum);
    for (std::int64_t i = 0; i < count_of(args.outputs[0]); ++i) {
      const T p = args.inputs[0].as<const T>()[i];
      T g = factor * args.inputs[1].as<const T>()[i] + decay * p;
      if (has_velocity) {
        const T v = momentum * args.inputs[3].as<const T>()[i] + g;
        args.outputs[1].as<T>()[i] = v;
        g = op.nesterov ? g + momentum * v : v;
      }
      args.outputs[0].as<T>()[i] = p - rate * g;
    }
  });
}

// ---- Adam

AdamCoefficients coefficients_of(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::AdamUpdate>(args);
  return adam_coefficients(op, scalar_of(args.inputs[2]), *args.inputs[3].as<const std::int64_t>(),
                           factor_of(args, op.clipped));
}

template <const OptimizerFunctions& Functions>
void vector_adam(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::AdamUpdate>(args);
  const AdamCoefficients c = coefficients_of(args);
  if (keeps(args, c.factor, {0, 4, 5})) return;
  const AdamStep all = adam_step(op, c);
  parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                  [&](std::int64_t begin, std::int64_t end) {
                    AdamStep step = all;
                    step.parameter = args.inputs[0].as<const float>() + begin;
                    step.gradient = args.inputs[1].as<const float>() + begin;
                    step.mean = args.inputs[4].as<const float>() + begin;
                    step.variance = args.inputs[5].as<const float>() + begin;
                    step.new_parameter = args.outputs[0].as<float>() + begin;
                    step.new_mean = args.outputs[1].as<float>() + begin;
                    step.new_variance = args.outputs[2].as<float>() + begin;
                    step.n = end - begin;
                    Functions.adam(step);
                  });
}

void reference_adam(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::AdamUpdate>(args);
  const AdamCoefficients c = coefficients_of(args);
  if (keeps(args, c.factor, {0, 4, 5})) return;
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t i = 0; i < count_of(args.outputs[0]); ++i) {
      const T p = args.inputs[0].as<const T>()[i];
      const T g = T(c.factor) * args.inputs[1].as<const T>()[i] + T(c.weight_decay) * p;
      const T old_mean = args.inputs[4].as<const T>()[i];
      const T mean = old_mean + T(c.mean_weight) * (g - old_mean);
      const T variance =
          T(op.beta2) * args.inputs[5].as<const T>()[i] + T(c.variance_weight) * g * g;
      const T denominator = std::sqrt(variance) * T(c.inverse_correction) + T(op.eps);
      args.outputs[1].as<T>()[i] = mean;
      args.outputs[2].as<T>()[i] = variance;
      args.outputs[0].as<T>()[i] = T(c.shrink) * p - T(c.step_size) * (mean / denominator);
    }
  });
}

// ---- Exponential moving average

// 1 - decay, the decay limited while there are few steps.
double ema_weight(const KernelArgs& args) noexcept {
  const auto step = static_cast<double>(*args.inputs[2].as<const std::int64_t>());
  return 1.0 - std::min(op_of<ops::EmaUpdate>(args).decay, (1.0 + step) / (10.0 + step));
}

template <const OptimizerFunctions& Functions>
void vector_ema(const KernelArgs& args) noexcept {
  const auto weight = static_cast<float>(ema_weight(args));
  const auto* average = args.inputs[0].as<const float>();
  const auto* value = args.inputs[1].as<const float>();
  auto* output = args.outputs[0].as<float>();
  parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                  [=](std::int64_t begin, std::int64_t end) {
                    Functions.ema(average + begin, value + begin, weight, output + begin,
                                  end - begin);
                  });
}

void reference_ema(const KernelArgs& args) noexcept {
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T weight = static_cast<T>(ema_weight(args));
    for (std::int64_t i = 0; i < count_of(args.outputs[0]); ++i) {
      const T average = args.inputs[0].as<const T>()[i];
      args.outputs[0].as<T>()[i] = average + weight * (args.inputs[1].as<const T>()[i] - average);
    }
  });
}

// ---- Step counter

void increment(const KernelArgs& args) noexcept {
  *args.outputs[0].as<std::int64_t>() = *args.inputs[0].as<const std::int64_t>() + 1;
}

// ---- Scale of the loss

void loss_scale(const KernelArgs& args) noexcept {
  constexpr double kSmallest = 0x1p-24, kLargest = 0x1p24;
  const auto& op = op_of<ops::LossScale>(args);
  double norm = scalar_of(args.inputs[0]), scale = scalar_of(args.inputs[1]), factor = -1.0;
  std::int64_t good_steps = *args.inputs[2].as<const std::int64_t>();
  if (!(scale >= kSmallest && scale <= kLargest)) {
    norm = std::numeric_limits<double>::quiet_NaN();
    scale = scale < kSmallest ? kSmallest : kLargest;
    good_steps = 0;
  } else if (std::isfinite(norm)) {
    norm /= scale;
    factor = (norm > op.max_norm ? op.max_norm / norm : 1.0) / scale;
    if (++good_steps >= op.growth_interval) {
      good_steps = 0;
      scale = std::min(2.0 * scale, kLargest);
    }
  } else {
    good_steps = 0;
    scale = std::max(0.5 * scale, kSmallest);
  }
  with_float(args.outputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    *args.outputs[0].as<T>() = static_cast<T>(factor);
    *args.outputs[1].as<T>() = static_cast<T>(norm);
    *args.outputs[2].as<T>() = static_cast<T>(scale);
  });
  *args.outputs[3].as<std::int64_t>() = good_steps;
}

void commit(const KernelArgs& args) noexcept {
  keep_tensor(args.inputs[scalar_of(args.inputs[2]) < 0.0 ? 1 : 0], args.outputs[0]);
}

// ---- Selection

Kernel make_kernel(KernelFunction run, std::vector<std::uint32_t> in_place) {
  Kernel kernel;
  kernel.run = run;
  kernel.in_place = std::move(in_place);
  return kernel;
}

std::vector<std::uint32_t> sgd_in_place(const Problem& problem) {
  return problem.outputs.size() > 1 ? std::vector<std::uint32_t>{1u << 0, 1u << 3}
                                    : std::vector<std::uint32_t>{1u << 0};
}

template <const OptimizerFunctions& Functions>
Kernel make_sgd(const ops::SgdUpdate&, const Problem& problem) {
  return make_kernel(vector_sgd<Functions>, sgd_in_place(problem));
}
Kernel make_sgd_reference(const ops::SgdUpdate&, const Problem& problem) {
  return make_kernel(reference_sgd, sgd_in_place(problem));
}
template <const OptimizerFunctions& Functions>
Kernel make_adam(const ops::AdamUpdate&, const Problem&) {
  return make_kernel(vector_adam<Functions>, {1u << 0, 1u << 4, 1u << 5});
}
Kernel make_adam_reference(const ops::AdamUpdate&, const Problem&) {
  return make_kernel(reference_adam, {1u << 0, 1u << 4, 1u << 5});
}
template <const OptimizerFunctions& Functions>
Kernel make_ema(const ops::EmaUpdate&, const Problem&) {
  return make_kernel(vector_ema<Functions>, {1u << 0});
}
Kernel make_ema_reference(const ops::EmaUpdate&, const Problem&) {
  return make_kernel(reference_ema, {1u << 0});
}
Kernel make_increment(const ops::Increment&, const Problem&) {
  return make_kernel(increment, {1u << 0});
}
Kernel make_loss_scale(const ops::LossScale&, const Problem&) {
  return make_kernel(loss_scale, {0, 1u << 0, 1u << 1, 1u << 2});
}
Kernel make_commit(const ops::Commit&, const Problem&) {
  return make_kernel(commit, {1u << 0 | 1u << 1});
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::SgdUpdate, "sgd_update", accept_float32, make_sgd, kOptimizer,
                      make_sgd_reference)
PYCNN_DEFINE_VARIANTS(ops::AdamUpdate, "adam_update", accept_float32, make_adam, kOptimizer,
                      make_adam_reference)
PYCNN_DEFINE_VARIANTS(ops::EmaUpdate, "ema_update", accept_float32, make_ema, kOptimizer,
                      make_ema_reference)
PYCNN_DEFINE_SINGLE_VARIANT(ops::Increment, "increment.scalar", make_increment)
PYCNN_DEFINE_SINGLE_VARIANT(ops::LossScale, "loss_scale.scalar", make_loss_scale)
PYCNN_DEFINE_SINGLE_VARIANT(ops::Commit, "commit.copy", make_commit)

}  // namespace pycnn::cpu
