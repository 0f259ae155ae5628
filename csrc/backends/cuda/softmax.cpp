#include "backends/cuda/softmax.h"

#include "backends/cuda/elementwise.h"
#include "backends/cuda/glue.h"
#include "backends/cuda/total_scratch.h"

namespace pycnn::cuda {
namespace {

template <bool kLog>
void run_softmax(const KernelArgs& args) noexcept {
  const TensorSpec& spec = *args.inputs[0].spec;
  softmax(queue_of(args), args.inputs[0].as<const float>(), args.outputs[0].as<float>(),
          rows_of(spec), channels_of(spec), kLog);
}

template <bool kLog>
void run_softmax_grad(const KernelArgs& args) noexcept {
  const TensorSpec& spec = *args.inputs[0].spec;
  softmax_grad(queue_of(args), args.inputs[0].as<const float>(), args.inputs[1].as<const float>(),
               args.outputs[0].as<float>(), rows_of(spec), channels_of(spec), kLog);
}

Labels labels_of(const TensorView& view) {
  Labels labels;
  if (view.spec->dtype == DType::kInt64)
    labels.wide = view.as<const std::int64_t>();
  else if (view.spec->dtype == DType::kInt32)
    labels.narrow = view.as<const std::int32_t>();
  else
    labels.soft = view.as<const float>();
  return labels;
}

void run_cross_entropy(const KernelArgs& args) noexcept {
  cross_entropy(
      queue_of(args), image_of(args.inputs[0]), args.inputs[0].data, labels_of(args.inputs[1]),
      static_cast<float>(op_of<ops::SoftmaxCrossEntropy>(args).label_smoothing),
      args.outputs[0].as<float>(), args.inputs[0].dim(0), args.inputs[0].dim(1), args.scratch);
}

void run_cross_entropy_grad(const KernelArgs& args) noexcept {
  cross_entropy_grad(queue_of(args), image_of(args.inputs[0]), args.inputs[0].data,
                     labels_of(args.inputs[1]),
                     static_cast<float>(op_of<ops::SoftmaxCrossEntropyGrad>(args).label_smoothing),
                     args.inputs[2].as<const float>(), image_of(args.outputs[0]),
                     args.outputs[0].data, args.inputs[0].dim(0), args.inputs[0].dim(1));
}

void run_squared_error(const KernelArgs& args) noexcept {
  mean_squared_error(queue_of(args), args.inputs[0].as<const float>(),
                     args.inputs[1].as<const float>(), args.outputs[0].as<float>(),
                     count_of(args.inputs[0]), args.scratch);
}

void run_squared_error_grad(const KernelArgs& args) noexcept {
  const std::int64_t count = count_of(args.inputs[0]);
  squared_error_grad(queue_of(args), args.inputs[0].as<const float>(),
                     args.inputs[1].as<const float>(), args.inputs[2].as<const float>(),
                     static_cast<float>(2.0 / static_cast<double>(count)),
                     args.outputs[0].as<float>(), count);
}

void run_top_k(const KernelArgs& args) noexcept {
  top_k_correct(queue_of(args), image_of(args.inputs[0]), args.inputs[0].data,
                labels_of(args.inputs[1]), op_of<ops::TopKCorrect>(args).k,
                args.outputs[0].as<float>(), args.inputs[0].dim(0), args.inputs[0].dim(1),
                args.scratch);
}

// Scores as they are, and their gradient as it is wanted, of float32 alone: a second cast of it
// would undo the first's rounding.
bool widens_scores(Kernel&, const Op& op, const Neighbour& neighbour) noexcept {
  if (!is_cast(neighbour) || neighbour.place != 0) return false;
  return !neighbour.is_reader || (std::holds_alternative<ops::SoftmaxCrossEntropyGrad>(op) &&
                                  neighbour.inputs[0].dtype == DType::kFloat32);
}

Choice take(KernelFunction run, const Problem& problem, std::int64_t scratch_bytes = 0) {
  if (const char* const reason = unfit_type(problem, true)) return refuse(reason);
  return {run, scratch(scratch_bytes)};
}

}  // namespace

Choice select(const ops::Softmax&, const Problem& problem) {
  return take(run_softmax<false>, problem);
}
Choice select(const ops::LogSoftmax&, const Problem& problem) {
  return take(run_softmax<true>, problem);
}
Choice select(const ops::SoftmaxGrad&, const Problem& problem) {
  return take(run_softmax_grad<false>, problem);
}
Choice select(const ops::LogSoftmaxGrad&, const Problem& problem) {
  return take(run_softmax_grad<true>, problem);
}
Choice select(const ops::SoftmaxCrossEntropy&, const Problem& problem) {
  return absorbing(
      take(run_cross_entropy, problem, row_total_scratch_bytes(problem.inputs[0].shape[0])),
      problem, widens_scores);
}
Choice select(const ops::SoftmaxCrossEntropyGrad&, const Problem& problem) {
  return absorbing(take(run_cross_entropy_grad, problem), problem, widens_scores);
}
Choice select(const ops::MeanSquaredError&, const Problem& problem) {
  return take(run_squared_error, problem, total_scratch_bytes(count_of(problem.inputs[0])));
}
Choice select(const ops::MeanSquaredErrorGrad&, const Problem& problem) {
  return take(run_squared_error_grad, problem);
}
Choice select(const ops::TopKCorrect&, const Problem& problem) {
  return absorbing(take(run_top_k, problem, row_total_scratch_bytes(problem.inputs[0].shape[0])),
                   problem, widens_scores);
}

}  // namespace pycnn::cuda
