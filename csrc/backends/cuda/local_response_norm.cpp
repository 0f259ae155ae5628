#include "backends/cuda/local_response_norm.h"

#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

ResponseNorm norm_of(const ops::LocalResponseNorm& op, const TensorView& input) {
  ResponseNorm norm{};
  norm.before = static_cast<int>(op.size / 2);
  norm.after = static_cast<int>((op.size - 1) / 2);
  norm.alpha_over_size = static_cast<float>(op.alpha / static_cast<double>(op.size));
  norm.beta = static_cast<float>(op.beta);
  norm.k = static_cast<float>(op.k);
  norm.pixels = rows_of(*input.spec);
  norm.channels = channels_of(*input.spec);
  norm.input_pitch = input.pitch();
  return norm;
}

void run(const KernelArgs& args) noexcept {
  ResponseNorm norm = norm_of(op_of<ops::LocalResponseNorm>(args), args.inputs[0]);
  norm.output_pitch = args.outputs[0].pitch();
  response_norm(queue_of(args), image_of(args.inputs[0]), norm, args.inputs[0].data,
                args.outputs[0].data);
}

void run_grad(const KernelArgs& args) noexcept {
  ResponseNorm norm = norm_of(op_of<ops::LocalResponseNormGrad>(args).norm, args.inputs[0]);
  norm.grad_output_pitch = args.inputs[1].pitch();
  norm.grad_input_pitch = args.outputs[0].pitch();
  response_norm_grad(queue_of(args), image_of(args.inputs[0]), norm, args.inputs[0].data,
                     args.inputs[1].data, args.outputs[0].data);
}

}  // namespace

Choice select(const ops::LocalResponseNorm&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return strided({run}, 1, 1);
}
Choice select(const ops::LocalResponseNormGrad&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return strided({run_grad}, 3, 1);
}

}  // namespace pycnn::cuda
