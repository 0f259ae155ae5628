#include "backends/cuda/conv2d.h"

#include <limits>

#include "backends/cuda/conv2d_problem.h"
#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

// Pixels and cells of windows are counted by 32 bits; coordinates reach beyond the image by the
// padding and the window.
constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max() / 4;

const char* unfit(const Problem& problem) {
  if (const char* const type = unfit_type(problem)) return type;
  for (const Specs specs : {problem.inputs, problem.outputs})
    for (const TensorSpec& spec : specs)
      if (count_of(spec) > kLargest) return "a tensor has more than 2^29 elements";
  return nullptr;
}

// Strides, dilations and paddings have no bound of their own where one window fits.
template <class OpType>
const char* unfit_window(const OpType& op, const Problem& problem) {
  for (const std::int64_t size :
       {op.stride[0], op.stride[1], op.dilation[0], op.dilation[1], op.padding.top,
        op.padding.bottom, op.padding.left, op.padding.right})
    if (size > kLargest) return "a stride, dilation or padding is more than 2^29";
  return unfit(problem);
}

const char* unfit_epilogue(const Epilogue& epilogue) {
  return has_curve(epilogue.activation) ? nullptr : kNoCurve;
}

void run_forward(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Conv2d>(args);
  conv2d(queue_of(args), image_of(args.inputs[0]),
         shape_of(op, args.inputs[0].spec->shape, args.inputs[1].spec->shape,
                  args.outputs[0].spec->shape),
         args.inputs[0].data, args.inputs[1].as<const float>(), epilogue_of(op.epilogue, args),
         args.outputs[0].data);
}

void run_grad_input(const KernelArgs& args) noexcept {
  conv2d_grad_input(queue_of(args), image_of(args.inputs[0]),
                    shape_of(op_of<ops::Conv2dGradInput>(args), args.outputs[0].spec->shape,
                             args.inputs[1].spec->shape, args.inputs[0].spec->shape),
                    args.inputs[0].data, args.inputs[1].as<const float>(), args.outputs[0].data);
}

void run_grad_weight(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Conv2dGradWeight>(args);
  conv2d_grad_weight(queue_of(args), image_of(args.inputs[0]),
                     shape_of(op, args.inputs[0].spec->shape, args.outputs[0].spec->shape,
                              args.inputs[1].spec->shape),
                     args.inputs[0].data, args.inputs[1].data, args.outputs[0].as<float>(),
                     op.bias ? args.outputs[1].as<float>() : nullptr, args.scratch);
}

void run_dense(const KernelArgs& args) noexcept {
  const TensorSpec& output = *args.outputs[0].spec;
  conv2d(queue_of(args), image_of(args.inputs[0]),
         dense_shape(rows_of(output), channels_of(*args.inputs[0].spec), channels_of(output)),
         args.inputs[0].data, args.inputs[1].as<const float>(),
         epilogue_of(op_of<ops::Dense>(args).epilogue, args), args.outputs[0].data);
}

void run_dense_grad_input(const KernelArgs& args) noexcept {
  const TensorSpec& grad_output = *args.inputs[0].spec;
  conv2d_grad_input(queue_of(args), image_of(args.inputs[0]),
                    dense_shape(rows_of(grad_output), channels_of(*args.outputs[0].spec),
                                channels_of(grad_output)),
                    args.inputs[0].data, args.inputs[1].as<const float>(), args.outputs[0].data);
}

void run_dense_grad_weight(const KernelArgs& args) noexcept {
  const bool bias = op_of<ops::DenseGradWeight>(args).bias;
  conv2d_grad_weight(queue_of(args), image_of(args.inputs[0]),
                     dense_weight_shape(*args.inputs[0].spec, *args.inputs[1].spec),
                     args.inputs[0].data, args.inputs[1].data, args.outputs[0].as<float>(),
                     bias ? args.outputs[1].as<float>() : nullptr, args.scratch);
}

}  // namespace

Choice select(const ops::Conv2d& op, const Problem& problem) {
  if (const char* const reason = unfit_window(op, problem)) return refuse(reason);
  if (const char* const reason = unfit_epilogue(op.epilogue)) return refuse(reason);
  return {run_forward};
}

Choice select(const ops::Conv2dGradInput& op, const Problem& problem) {
  if (const char* const reason = unfit_window(op, problem)) return refuse(reason);
  return {run_grad_input};
}

Choice select(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* const reason = unfit_window(op, problem)) return refuse(reason);
  const ConvShape shape =
      shape_of(op, problem.inputs[0].shape, problem.outputs[0].shape, problem.inputs[1].shape);
  return {run_grad_weight, scratch(conv2d_grad_weight_scratch_bytes(shape, op.bias))};
}

Choice select(const ops::Dense& op, const Problem& problem) {
  if (const char* const reason = unfit(problem)) return refuse(reason);
  if (const char* const reason = unfit_epilogue(op.epilogue)) return refuse(reason);
  return {run_dense};
}

Choice select(const ops::DenseGradInput&, const Problem& problem) {
  if (const char* const reason = unfit(problem)) return refuse(reason);
  return {run_dense_grad_input};
}

Choice select(const ops::DenseGradWeight& op, const Problem& problem) {
  if (const char* const reason = unfit(problem)) return refuse(reason);
  const ConvShape shape = dense_weight_shape(problem.inputs[0], problem.inputs[1]);
  return {run_dense_grad_weight, scratch(conv2d_grad_weight_scratch_bytes(shape, op.bias))};
}

}  // namespace pycnn::cuda
