#include <limits>
#include <optional>

#include "backends/cpu/activation_reference.h"
#include "backends/cpu/batch_norm_matrix.h"
#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/select.h"

// Batch norm of training in two halves: statistics, then one pass that normalises, adds a residual
// and activates; and the gradient of both, which looks at the input once more to see where the
// activation was open, so that its result need not be kept.
namespace pycnn::cpu {
namespace batch_norm {
namespace {

// ---- BatchNormStatistics

// Of the input that a convolution measured.
template <class T>
ref::Moments known_moments(const KernelArgs& args, std::int64_t c) noexcept {
  const T* const moments = args.inputs[5].as<const T>();
  const std::int64_t channels = args.inputs[5].dim(1);
  return {static_cast<double>(moments[c]) + static_cast<double>(moments[channels + c]),
          static_cast<double>(moments[2 * channels + c])};
}

void statistics_reference(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const auto& op = op_of<ops::BatchNormStatistics>(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t c = 0; c < l.channels; ++c) {
      const ref::Column<T> x{args.inputs[0].as<const T>(), l.rows, l.channels, c};
      const ref::Moments m = args.inputs.size() > 5 ? known_moments<T>(args, c) : ref::moments(x);
      const double inv_std = 1.0 / std::sqrt(m.variance + op.eps);
      const double factor = inv_std * args.inputs[1].as<const T>()[c];
      const double lost = m.mean - static_cast<double>(static_cast<T>(m.mean));
      args.outputs[4].as<T>()[c] = static_cast<T>(factor);
      args.outputs[5].as<T>()[c] = static_cast<T>(args.inputs[2].as<const T>()[c] - lost * factor);
      finish_statistics<T>(args, 0, op.momentum, c, l.rows, m.mean, m.variance, inv_std);
    }
  });
}

template <class Isa>
void statistics(const KernelArgs& args) noexcept {
  if (args.inputs.size() > 5) return statistics_reference(args);
  const Layout l = layout_of(*args.inputs[0].spec);
  const Scratch scratch(args, l);
  const Order order = worth_measuring(*args.inputs[0].spec) ? Order::kForwards : Order::kBackwards;
  measure<Isa, 0>(args, op_of<ops::BatchNormStatistics>(args), l, scratch, order,
                  [&](std::int64_t c, double, double factor, double offset) {
                    args.outputs[4].as<float>()[c] = static_cast<float>(factor);
                    args.outputs[5].as<float>()[c] = static_cast<float>(offset);
                  });
}

// ---- BatchNormApply

void apply_reference(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const Epilogue& epilogue = op_of<ops::BatchNormApply>(args).epilogue;
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t i = 0; i < l.rows * l.channels; ++i) {
      const auto c = i % l.channels;
      const auto value = [&](std::size_t input, std::int64_t at) -> double {
        return args.inputs[input].as<const T>()[at];
      };
      double y = (value(0, i) - value(1, c)) * value(2, c) + value(3, c);
      if (args.inputs.size() > 5)
        y += (value(4, i) - value(5, c)) * value(6, c) + value(7, c);
      else if (epilogue.residual)
        y += value(4, i);
      args.outputs[0].as<T>()[i] =
          activated(epilogue.activation, static_cast<T>(y), static_cast<T>(epilogue.slope));
    }
  });
}

// Vectors of channels (inputs first, first + 1, ...) repeated to whole rows of the matrix.
void repeat_channels(const KernelArgs& args, const Layout& l, const Scratch& scratch,
                     std::size_t first, std::int64_t coefficient, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t c = 0; c < l.channels; ++c)
      scratch.set(coefficient + i, c,
                  args.inputs[first + static_cast<std::size_t>(i)].as<const float>()[c]);
}

template <class Isa>
void apply(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const Scratch scratch(args, l);
  const Epilogue& epilogue = op_of<ops::BatchNormApply>(args).epilogue;
  const std::optional<Rectifier> rectifier = rectifier_of(epilogue.activation, epilogue.slope);
  const TensorView* const residual = epilogue.residual ? &args.inputs[4] : nullptr;
  repeat_channels(args, l, scratch, 1, 0, 3);
  const bool two = args.inputs.size() > 5;
  if (two) repeat_channels(args, l, scratch, 5, 3, 3);
  const ColumnNorm residual_norm = scratch.norm(3);
  // As a rule a convolution has just written the input, and measured it where that is worth it. A
  // pass for the statistics goes the other way.
  const Order order = worth_measuring(*args.inputs[0].spec) ? Order::kBackwards : Order::kForwards;
  const StreamedPart streamed(args, l, order);
  for_chunks<Isa>(args, l, args.inputs[0], residual, &args.outputs[0], order,
                  [&](const auto& functions, std::int64_t, const Chunk& chunk, const auto* x,
                      const auto* more, auto* y) {
                    functions.apply(x, more, y, chunk.rows, chunk.width, scratch.norm(0),
                                    two ? &residual_norm : nullptr,
                                    rectifier ? &*rectifier : nullptr, streamed.has(chunk));
                  });
}

// ---- BatchNormApplyGrad

struct ApplyGrad : TrainGrad {
  using OpType = ops::BatchNormApplyGrad;
  static constexpr std::size_t kGradOutput = 6;
};

void apply_grad_reference(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const auto& op = op_of<ops::BatchNormApplyGrad>(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const auto vector = [&](std::size_t input, std::int64_t c) -> double {
      return args.inputs[input].as<const T>()[c];
    };
    for (std::int64_t c = 0; c < l.channels; ++c) {
      const ref::Column<T> x{args.inputs[0].as<const T>(), l.rows, l.channels, c};
      const ref::Column<T> g{args.inputs[6].as<const T>(), l.rows, l.channels, c};
      const double mean = vector(2, c);
      const auto gated = [&](std::int64_t r) -> double {
        const auto y = static_cast<T>((x[r] - mean) * vector(4, c) + vector(5, c));
        // Of a rectifier the slope is the same at its input.
        return passed_back(op.activation, y, static_cast<T>(g[r]), static_cast<T>(op.slope));
      };
      const bool known = knows_sums<ApplyGrad>(args);
      ref::GradientSums sums;
      if (known) sums = known_sums<T>(args, c);
      for (std::int64_t r = 0; r < l.rows && !known; ++r) {
        sums.sum += gated(r);
        sums.product += gated(r) * (x[r] - mean);
      }
      const Coefficients k = finish_gradient<ApplyGrad, T>(args, c, l.rows, sums);
      for (std::int64_t r = 0; r < l.rows; ++r)
        args.outputs[0].as<T>()[r * l.channels + c] =
            static_cast<T>(k.a * gated(r) + k.b * (x[r] - mean) + k.c);
    }
  });
}

template <class Isa>
void apply_grad(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const Scratch scratch(args, l);
  const auto& op = op_of<ops::BatchNormApplyGrad>(args);
  const std::optional<Rectifier> rectifier = rectifier_of(op.activation, op.slope);
  if (!rectifier) return input_gradient<Isa, ApplyGrad>(args, l, scratch, nullptr);
  repeat_channels(args, l, scratch, 4, 4, 2);
  const Gate gate{scratch.coefficient(4), scratch.coefficient(5), *rectifier};
  input_gradient<Isa, ApplyGrad>(args, l, scratch, &gate);
}

}  // namespace
}  // namespace batch_norm

std::optional<Rectifier> rectifier_of(ActivationKind kind, double slope) noexcept {
  constexpr float kNever = std::numeric_limits<float>::quiet_NaN();
  switch (kind) {
    case ActivationKind::kRelu:
      return Rectifier{0.0f, kNever, 0.0f, 0, Rectifier::Form::kRelu};
    case ActivationKind::kRelu6:
      return Rectifier{0.0f, 6.0f, 0.0f, 0, Rectifier::Form::kOther};
    case ActivationKind::kLeakyRelu:
      return Rectifier{0.0f, kNever, static_cast<float>(slope), -1, Rectifier::Form::kLeakyRelu};
    default:
      return std::nullopt;
  }
}

PYCNN_BATCH_NORM_OP(ops::BatchNormStatistics, "batch_norm_statistics",
                    batch_norm::statistics_reference, batch_norm::statistics<Isa>, 0, 0,
                    batch_norm::bit(3), batch_norm::bit(4), 0, 0)
PYCNN_BATCH_NORM_OP(ops::BatchNormApply, "batch_norm_apply", batch_norm::apply_reference,
                    batch_norm::apply<Isa>, batch_norm::bit(0) | batch_norm::bit(4))
PYCNN_BATCH_NORM_OP(ops::BatchNormApplyGrad, "batch_norm_apply_grad",
                    batch_norm::apply_grad_reference, batch_norm::apply_grad<Isa>,
                    batch_norm::bit(0) | batch_norm::bit(6), 0, 0)

}  // namespace pycnn::cpu
