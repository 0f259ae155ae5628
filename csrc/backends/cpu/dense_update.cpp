#include <algorithm>
#include <cstring>

#include "backends/cpu/conv2d_bfloat16.h"
#include "backends/cpu/conv2d_weight_grad.h"
#include "backends/cpu/dense_update_bfloat16.h"
#include "backends/cpu/optimizer_steps.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// A dense layer's weight gradient and the update that takes it, some rows of the weight at a time:
// each worker computes the gradient of its rows by the kernel of DenseGradWeight, into a buffer
// that stays in a cache, and updates them from there. How many rows depends on the shapes alone.
// Of bfloat16 images: dense_update_bfloat16.h.
namespace pycnn::cpu {
namespace {

// Of a gradient at a time: 4 MB.
constexpr Index kBufferFloats = 1024 * 1024;
constexpr Index kRowStep = 16;

// Followed by the plans of the two gradient kernels, of whole pieces and of the last.
struct DenseUpdatePlan {
  Index images = 0, inputs = 0, outputs = 0;
  Index rows = 0;  // of a piece
  Index pieces = 0;
  KernelFunction whole = nullptr, last = nullptr;
  Index whole_plan = 0, last_plan = 0;  // where they begin, in bytes
  Index gradient_scratch = 0;           // floats of a worker, in this order
  Index gradient = 0, grad_output = 0;

  Index worker_floats() const { return gradient_scratch + gradient + grad_output; }
};
static_assert(std::has_unique_object_representations_v<DenseUpdatePlan>);

Index padded(Index floats) { return ceil_div(floats, 16) * 16; }

// Where the inputs are.
constexpr std::size_t kParameter = 0, kInput = 1, kGradOutput = 2, kRate = 3;

// Computes the gradient of rows [row, row + rows) of the weight, and of as many biases if `bias`
// is not null; returns the gradient.
float* gradient_of_piece(const KernelArgs& args, const DenseUpdatePlan& plan, Index piece,
                         float* scratch, float* bias) noexcept {
  const Index row = piece * plan.rows, rows = std::min(plan.rows, plan.outputs - row);
  float* const gradient = scratch + plan.gradient_scratch;
  float* const grads = gradient + plan.gradient;
  const auto* const grad_output = args.inputs[kGradOutput].as<const float>() + row;
  for (Index n = 0; n < plan.images; ++n)
    std::memcpy(grads + n * rows, grad_output + n * plan.outputs,
                static_cast<std::size_t>(rows) * sizeof(float));
  const bool whole = rows == plan.rows;
  const TensorView inputs[] = {args.inputs[kInput], {grads, nullptr, rows}};
  const TensorView outputs[] = {{gradient, nullptr}, {bias, nullptr}};
  KernelArgs inner;
  inner.inputs = inputs;
  inner.outputs = outputs;
  inner.scratch = reinterpret_cast<std::byte*>(scratch);
  inner.plan = args.plan + (whole ? plan.whole_plan : plan.last_plan);
  (whole ? plan.whole : plan.last)(inner);
  return gradient;
}

// Each of these calls take(first element, count, gradient) for pieces of the weight.
struct RowPieces {
  static void each(const KernelArgs& args, float* grad_bias, TakeGradients take) noexcept {
    const auto& plan = *reinterpret_cast<const DenseUpdatePlan*>(args.plan);
    parallel_for(args.threads, plan.pieces, [&](std::int64_t piece, int worker) {
      float* const scratch = reinterpret_cast<float*>(args.scratch) + worker * plan.worker_floats();
      const Index row = piece * plan.rows, rows = std::min(plan.rows, plan.outputs - row);
      float* const bias = grad_bias != nullptr ? grad_bias + row : nullptr;
      float* const gradient = gradient_of_piece(args, plan, piece, scratch, bias);
      take(row * plan.inputs, rows * plan.inputs, gradient);
    });
  }
};

template <const PairUnit& kUnit>
struct PairTilePieces {
  static void each(const KernelArgs& args, float* grad_bias, TakeGradients take) noexcept {
    each_pair_tile(args, kUnit, grad_bias, take);
  }
};

float* grad_bias_of(const KernelArgs& args, bool bias) {
  return bias ? args.outputs.back().as<float>() : nullptr;
}

template <const OptimizerFunctions& Functions, class Pieces>
void run_sgd(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::DenseSgdUpdate>(args);
  const SgdStep all = sgd_step(op.update, scalar_of(args.inputs[kRate]), 1.0);
  Pieces::each(args, grad_bias_of(args, op.bias), [&](Index begin, Index count, float* gradient) {
    SgdStep step = all;
    step.parameter = args.inputs[kParameter].as<const float>() + begin;
    step.gradient = gradient;
    step.new_parameter = args.outputs[0].as<float>() + begin;
    if (op.update.momentum > 0.0) {
      step.velocity = args.inputs[4].as<const float>() + begin;
      step.new_velocity = args.outputs[1].as<float>() + begin;
    }
    step.n = count;
    Functions.sgd(step);
  });
}

template <const OptimizerFunctions& Functions, class Pieces>
void run_adam(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::DenseAdamUpdate>(args);
  const AdamStep all =
      adam_step(op.update, adam_coefficients(op.update, scalar_of(args.inputs[kRate]),
                                             *args.inputs[4].as<const std::int64_t>(), 1.0));
  Pieces::each(args, grad_bias_of(args, op.bias), [&](Index begin, Index count, float* gradient) {
    AdamStep step = all;
    step.parameter = args.inputs[kParameter].as<const float>() + begin;
    step.gradient = gradient;
    step.mean = args.inputs[5].as<const float>() + begin;
    step.variance = args.inputs[6].as<const float>() + begin;
    step.new_parameter = args.outputs[0].as<float>() + begin;
    step.new_mean = args.outputs[1].as<float>() + begin;
    step.new_variance = args.outputs[2].as<float>() + begin;
    step.n = count;
    Functions.adam(step);
  });
}

// ---- By the formulas, element by element

template <class T, class Update>
void each_gradient(const KernelArgs& args, bool bias, Update&& update) noexcept {
  const Index inputs = args.inputs[kInput].spec->shape.back();
  const Index outputs = args.inputs[kGradOutput].spec->shape.back();
  const Index images = count_of(args.inputs[kGradOutput]) / std::max<Index>(outputs, 1);
  const T* const x = args.inputs[kInput].as<const T>();
  const T* const g = args.inputs[kGradOutput].as<const T>();
  for (Index o = 0; o < outputs; ++o) {
    double bias_sum = 0.0;
    for (Index n = 0; n < images; ++n) bias_sum += g[n * outputs + o];
    if (bias) args.outputs.back().as<T>()[o] = static_cast<T>(bias_sum);
    for (Index i = 0; i < inputs; ++i) {
      double sum = 0.0;
      for (Index n = 0; n < images; ++n)
        sum += static_cast<double>(g[n * outputs + o]) * static_cast<double>(x[n * inputs + i]);
      update(o * inputs + i, static_cast<T>(sum));
    }
  }
}

void sgd_reference(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::DenseSgdUpdate>(args);
  const ops::SgdUpdate& sgd = op.update;
  with_float(args.inputs[kParameter].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T rate = static_cast<T>(scalar_of(args.inputs[kRate]) * sgd.rate_scale);
    each_gradient<T>(args, op.bias, [&](Index i, T gradient) {
      const T p = args.inputs[kParameter].as<const T>()[i];
      T g = gradient + static_cast<T>(sgd.weight_decay) * p;
      if (sgd.momentum > 0.0) {
        const T momentum = static_cast<T>(sgd.momentum);
        const T v = momentum * args.inputs[4].as<const T>()[i] + g;
        args.outputs[1].as<T>()[i] = v;
        g = sgd.nesterov ? g + momentum * v : v;
      }
      args.outputs[0].as<T>()[i] = p - rate * g;
    });
  });
}

void adam_reference(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::DenseAdamUpdate>(args);
  const AdamCoefficients c = adam_coefficients(op.update, scalar_of(args.inputs[kRate]),
                                               *args.inputs[4].as<const std::int64_t>(), 1.0);
  with_float(args.inputs[kParameter].spec->dtype, [&](auto type) {
    using T = decltype(type);
    each_gradient<T>(args, op.bias, [&](Index i, T gradient) {
      const T p = args.inputs[kParameter].as<const T>()[i];
      const T g = gradient + T(c.weight_decay) * p;
      const T old_mean = args.inputs[5].as<const T>()[i];
      const T mean = old_mean + T(c.mean_weight) * (g - old_mean);
      const T variance =
          T(op.update.beta2) * args.inputs[6].as<const T>()[i] + T(c.variance_weight) * g * g;
      const T denominator = std::sqrt(variance) * T(c.inverse_correction) + T(op.update.eps);
      args.outputs[1].as<T>()[i] = mean;
      args.outputs[2].as<T>()[i] = variance;
      args.outputs[0].as<T>()[i] = T(c.shrink) * p - T(c.step_size) * (mean / denominator);
    });
  });
}

// ---- Selection

std::vector<std::uint32_t> in_place(const ops::DenseSgdUpdate& op) {
  if (op.update.momentum > 0.0) return {1u << kParameter, 1u << 4};
  return {1u << kParameter};
}
std::vector<std::uint32_t> in_place(const ops::DenseAdamUpdate&) {
  return {1u << kParameter, 1u << 5, 1u << 6};
}

void append(std::vector<std::byte>& bytes, Index& where, const std::vector<std::byte>& plan) {
  bytes.resize(static_cast<std::size_t>(ceil_div(static_cast<Index>(bytes.size()), 64) * 64));
  where = static_cast<Index>(bytes.size());
  bytes.insert(bytes.end(), plan.begin(), plan.end());
}

Kernel make_update(KernelFunction run, bool bias, const Problem& problem,
                   const WeightGradRun& gradient) {
  DenseUpdatePlan plan;
  plan.outputs = problem.inputs[kParameter].shape[0];
  plan.inputs = problem.inputs[kParameter].shape[1];
  plan.images = element_count(problem.inputs[kInput].shape) / plan.inputs;
  plan.rows = std::max(kRowStep, kBufferFloats / plan.inputs / kRowStep * kRowStep);
  plan.rows = std::min(plan.rows, plan.outputs);
  plan.pieces = ceil_div(plan.outputs, plan.rows);
  const auto kernel_of = [&](Index rows) {
    WeightGradProblem piece;
    piece.input = {plan.images, 1, 1, plan.inputs};
    piece.grad_output = {plan.images, 1, 1, rows};
    piece.bias = bias;
    return make_weight_grad_kernel(piece, 1, gradient);
  };
  const Kernel whole = kernel_of(plan.rows);
  const Kernel last = kernel_of(plan.outputs - (plan.pieces - 1) * plan.rows);
  plan.whole = whole.run, plan.last = last.run;
  const std::size_t scratch = std::max(whole.scratch_bytes, last.scratch_bytes);
  plan.gradient_scratch = padded(static_cast<Index>(scratch / sizeof(float)));
  plan.gradient = padded(plan.rows * plan.inputs);
  plan.grad_output = padded(plan.rows * plan.images);

  Kernel kernel;
  kernel.run = run;
  kernel.scratch_bytes = static_cast<std::size_t>(std::max(problem.threads, 1)) *
                         static_cast<std::size_t>(plan.worker_floats()) * sizeof(float);
  kernel.plan.resize(sizeof plan);
  append(kernel.plan, plan.whole_plan, whole.plan);
  append(kernel.plan, plan.last_plan, last.plan);
  std::memcpy(kernel.plan.data(), &plan, sizeof plan);
  return kernel;
}

template <KernelFunction kRun, const WeightGradRun& kGradient>
Kernel make_pieces(const auto& op, const Problem& problem) {
  Kernel kernel = make_update(kRun, op.bias, problem, kGradient);
  kernel.in_place = in_place(op);
  return kernel;
}

template <KernelFunction kRun>
Kernel make_pair_tiles(const auto& op, const Problem& problem) {
  Kernel kernel = make_pair_update_kernel(problem);
  kernel.run = kRun;
  kernel.in_place = in_place(op);
  return kernel;
}

const char* accept_amx_tiles(const auto&, const Problem&) { return refuse_amx(); }
const char* accept_avx512_tiles(const auto&, const Problem&) { return refuse_avx512_bf16(); }
const char* accept_portable_tiles(const auto&, const Problem& problem) {
  return refuse_portable(problem);
}

template <KernelFunction kRun>
Kernel make_reference(const auto& op, const Problem&) {
  Kernel kernel;
  kernel.run = kRun;
  kernel.in_place = in_place(op);
  return kernel;
}

}  // namespace

// clang-format off
#define PYCNN_DENSE_UPDATE(OP, NAME, RUN, REFERENCE)                                            \
  template <>                                                                                   \
  struct VariantList<OP> {                                                                      \
    static constexpr Variant<OP> kAll[] = {                                                     \
        PYCNN_IF_AVX512(                                                                        \
        {NAME ".bfloat16.amx", Isa::kAvx512, accept_amx_tiles,                                  \
         make_pair_tiles<RUN<avx512::kOptimizer, PairTilePieces<amx::kPairUnit>>>,              \
         Images::kBFloat16},                                                                    \
        {NAME ".bfloat16.avx512_bf16", Isa::kAvx512, accept_avx512_tiles,                       \
         make_pair_tiles<RUN<avx512::kOptimizer, PairTilePieces<avx512_bf16::kPairUnit>>>,      \
         Images::kBFloat16},                                                                    \
        {NAME ".pieces.avx512", Isa::kAvx512, accept_float32,                                   \
         make_pieces<RUN<avx512::kOptimizer, RowPieces>, kWeightGradAvx512>},)                  \
        PYCNN_IF_AVX2({NAME ".pieces.avx2", Isa::kAvx2, accept_float32,                         \
                       make_pieces<RUN<avx2::kOptimizer, RowPieces>, kWeightGradAvx2>},)        \
        {NAME ".pieces.baseline", Isa::kBaseline, accept_float32,                               \
         make_pieces<RUN<baseline::kOptimizer, RowPieces>, kWeightGradBaseline>},               \
        {NAME ".bfloat16.portable", Isa::kBaseline, accept_portable_tiles,                      \
         make_pair_tiles<RUN<baseline::kOptimizer, PairTilePieces<portable::kPairUnit>>>,       \
         Images::kBFloat16},                                                                    \
        {NAME ".reference", Isa::kBaseline, accept_all, make_reference<REFERENCE>}};            \
  };                                                                                            \
  PYCNN_DEFINE_SELECT(OP)
// clang-format on
PYCNN_DENSE_UPDATE(ops::DenseSgdUpdate, "dense_sgd_update", run_sgd, sgd_reference)
PYCNN_DENSE_UPDATE(ops::DenseAdamUpdate, "dense_adam_update", run_adam, adam_reference)
#undef PYCNN_DENSE_UPDATE

}  // namespace pycnn::cpu
