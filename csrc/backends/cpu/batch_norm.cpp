#include "backends/cpu/batch_norm_matrix.h"
#include "backends/cpu/select.h"

namespace pycnn::cpu {
namespace batch_norm {
namespace {

// ---- BatchNormTrain

void train_reference(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const auto& op = op_of<ops::BatchNormTrain>(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    for (std::int64_t c = 0; c < l.channels; ++c) {
      const ref::Column<T> x{input, l.rows, l.channels, c};
      const ref::Moments m = ref::moments(x);
      const double inv_std = 1.0 / std::sqrt(m.variance + op.eps);
      const double scale = args.inputs[1].as<const T>()[c], shift = args.inputs[2].as<const T>()[c];
      for (std::int64_t r = 0; r < l.rows; ++r)
        output[r * l.channels + c] = static_cast<T>((x[r] - m.mean) * inv_std * scale + shift);
      finish_statistics<T>(args, 1, op.momentum, c, l.rows, m.mean, m.variance, inv_std);
    }
  });
}

// By the coefficients 0 to 2: mean, factor and shift.
template <class Isa>
void normalize(const KernelArgs& args, const Layout& l, const Scratch& scratch) noexcept {
  const StreamedPart streamed(args, l, Order::kForwards);
  for_chunks<Isa>(args, l, args.inputs[0], nullptr, &args.outputs[0], Order::kForwards,
                  [&](const auto& functions, std::int64_t, const Chunk& chunk, const auto* x,
                      const auto*, auto* y) {
                    functions.apply(x, nullptr, y, chunk.rows, chunk.width, scratch.norm(0),
                                    nullptr, nullptr, streamed.has(chunk));
                  });
}

template <class Isa>
void train(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const Scratch scratch(args, l);
  measure<Isa, 1>(args, op_of<ops::BatchNormTrain>(args), l, scratch, Order::kBackwards,
                  [&](std::int64_t c, double mean, double factor, double offset) {
                    scratch.set(0, c, mean);
                    scratch.set(1, c, factor);
                    scratch.set(2, c, offset);
                  });
  normalize<Isa>(args, l, scratch);
}

// ---- BatchNormTrainGrad, BatchNormInferenceGrad

struct InferenceGrad {
  using OpType = ops::BatchNormInferenceGrad;
  template <class T>
  static double mean(const KernelArgs& args, std::int64_t c) noexcept {
    return args.inputs[2].as<const T>()[c];
  }
  template <class T>
  static double inv_std(const KernelArgs& args, std::int64_t c) noexcept {
    return 1.0 / std::sqrt(static_cast<double>(args.inputs[3].as<const T>()[c]) +
                           std::get_if<OpType>(args.op)->eps);
  }
  static constexpr std::size_t kGradOutput = 4;
  static constexpr bool kThroughStatistics = false;
};

template <class Grad>
void grad_reference(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t c = 0; c < l.channels; ++c) {
      const ref::Column<T> x{args.inputs[0].as<const T>(), l.rows, l.channels, c};
      const TensorView& gradient = args.inputs[Grad::kGradOutput];
      const ref::Column<T> g{gradient.as<const T>(), l.rows, l.channels, c};
      const double mean = Grad::template mean<T>(args, c);
      const ref::GradientSums sums =
          knows_sums<Grad>(args) ? known_sums<T>(args, c) : ref::gradient_sums(x, g, mean);
      const Coefficients k = finish_gradient<Grad, T>(args, c, l.rows, sums);
      T* const grad_input = args.outputs[0].as<T>() + c;
      for (std::int64_t r = 0; r < l.rows; ++r) {
        const double through_statistics =
            Grad::kThroughStatistics ? k.b * (x[r] - mean) + k.c : 0.0;
        grad_input[r * l.channels] = static_cast<T>(k.a * g[r] + through_statistics);
      }
    }
  });
}

template <class Isa, class Grad>
void grad(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const Scratch scratch(args, l);
  input_gradient<Isa, Grad>(args, l, scratch, nullptr);
}

// ---- BatchNormInference

double inference_factor(double scale, double variance, double eps) noexcept {
  return scale / std::sqrt(variance + eps);
}

void inference_reference(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const double eps = op_of<ops::BatchNormInference>(args).eps;
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    for (std::int64_t r = 0; r < l.rows; ++r)
      for (std::int64_t c = 0; c < l.channels; ++c) {
        const double factor =
            inference_factor(args.inputs[1].as<const T>()[c], args.inputs[4].as<const T>()[c], eps);
        const double centered =
            static_cast<double>(*input++) - static_cast<double>(args.inputs[3].as<const T>()[c]);
        *output++ = static_cast<T>(centered * factor + args.inputs[2].as<const T>()[c]);
      }
  });
}

template <class Isa>
void inference(const KernelArgs& args) noexcept {
  const Layout l = layout_of(*args.inputs[0].spec);
  const Scratch scratch(args, l);
  const double eps = op_of<ops::BatchNormInference>(args).eps;
  for (std::int64_t c = 0; c < l.channels; ++c) {
    scratch.set(0, c, args.inputs[3].as<const float>()[c]);
    scratch.set(1, c,
                inference_factor(args.inputs[1].as<const float>()[c],
                                 args.inputs[4].as<const float>()[c], eps));
    scratch.set(2, c, args.inputs[2].as<const float>()[c]);
  }
  normalize<Isa>(args, l, scratch);
}

// ---- FoldBatchNorm: runs once a change of the weights, so one plain kernel serves all types

void fold(const KernelArgs& args) noexcept {
  const double eps = op_of<ops::FoldBatchNorm>(args).eps;
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const auto input = [&](int i, std::int64_t c) -> double {
      return args.inputs[static_cast<std::size_t>(i)].as<const T>()[c];
    };
    const std::int64_t channels = args.inputs[0].dim(0);
    const std::int64_t per_channel = channels > 0 ? count_of(args.inputs[0]) / channels : 0;
    for (std::int64_t c = 0; c < channels; ++c) {
      const double factor = inference_factor(input(1, c), input(4, c), eps);
      const double bias = args.inputs.size() > 5 ? input(5, c) : 0.0;
      for (std::int64_t i = c * per_channel; i < (c + 1) * per_channel; ++i)
        args.outputs[0].as<T>()[i] = static_cast<T>(input(0, i) * factor);
      args.outputs[1].as<T>()[c] = static_cast<T>((bias - input(3, c)) * factor + input(2, c));
    }
  });
}

}  // namespace
}  // namespace batch_norm

// ---- Variants

PYCNN_BATCH_NORM_OP(ops::BatchNormTrain, "batch_norm_train", batch_norm::train_reference,
                    batch_norm::train<Isa>, batch_norm::bit(0), 0, 0, batch_norm::bit(3),
                    batch_norm::bit(4))
PYCNN_BATCH_NORM_OP(ops::BatchNormTrainGrad, "batch_norm_train_grad",
                    batch_norm::grad_reference<batch_norm::TrainGrad>,
                    (batch_norm::grad<Isa, batch_norm::TrainGrad>),
                    batch_norm::bit(0) | batch_norm::bit(4), 0, 0)
PYCNN_BATCH_NORM_OP(ops::BatchNormInference, "batch_norm_inference",
                    batch_norm::inference_reference, batch_norm::inference<Isa>, batch_norm::bit(0))
PYCNN_BATCH_NORM_OP(ops::BatchNormInferenceGrad, "batch_norm_inference_grad",
                    batch_norm::grad_reference<batch_norm::InferenceGrad>,
                    (batch_norm::grad<Isa, batch_norm::InferenceGrad>),
                    batch_norm::bit(0) | batch_norm::bit(4), 0, 0)

PYCNN_DEFINE_SINGLE_VARIANT(ops::FoldBatchNorm, "fold_batch_norm.reference",
                            plain_kernel<batch_norm::fold>)

}  // namespace pycnn::cpu
