#include "backends/cuda/unary.h"

#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

constexpr UnaryForm form_of(UnaryKind kind) { return static_cast<UnaryForm>(kind); }
static_assert(form_of(UnaryKind::kHardSigmoid) == UnaryForm::kHardSigmoid &&
              form_of(UnaryKind::kPower) == UnaryForm::kPower &&
              form_of(UnaryKind::kThreshold) == UnaryForm::kThreshold);

template <class OpType>
UnaryFunction function_of(const OpType& op) {
  return {form_of(op.kind), static_cast<float>(op.a), static_cast<float>(op.b)};
}

void run_unary(const KernelArgs& args) noexcept {
  unary(queue_of(args), image_of(args.inputs[0]), function_of(op_of<ops::Unary>(args)),
        args.inputs[0].data, args.outputs[0].data, count_of(args.outputs[0]));
}

void run_unary_grad(const KernelArgs& args) noexcept {
  unary_grad(queue_of(args), image_of(args.inputs[0]), function_of(op_of<ops::UnaryGrad>(args)),
             args.inputs[0].data, args.inputs[1].data, args.outputs[0].data,
             count_of(args.outputs[0]));
}

}  // namespace

Choice select(const ops::Unary&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return {run_unary, 0, {1u << 0}};
}

Choice select(const ops::UnaryGrad&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return {run_unary_grad, 0, {1u << 0 | 1u << 1}};
}

}  // namespace pycnn::cuda
