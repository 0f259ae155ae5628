#include "backends/cuda/pool.h"

#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

PoolAxis axis_of(std::int64_t input, std::int64_t output, std::int64_t kernel, std::int64_t stride,
                 std::int64_t dilation, std::int64_t before, std::int64_t after) {
  return {input, output, kernel, stride, dilation, before, after};
}

Pair dilation_of(const ops::MaxPool2d& pool) { return pool.dilation; }
Pair dilation_of(const ops::AvgPool2d&) { return {1, 1}; }

// Of the forward op's input and output.
template <class Pool>
PoolShape shape_of(const Pool& pool, const TensorView& input, const TensorView& output) {
  const Pair dilation = dilation_of(pool);
  return {input.dim(0),
          input.dim(3),
          axis_of(input.dim(1), output.dim(1), pool.kernel_size[0], pool.stride[0], dilation[0],
                  pool.padding.top, pool.padding.bottom),
          axis_of(input.dim(2), output.dim(2), pool.kernel_size[1], pool.stride[1], dilation[1],
                  pool.padding.left, pool.padding.right),
          input.pitch(),
          output.pitch(),
          input.pitch()};
}

PoolShape even_shape(const TensorView& input, const TensorView& output) {
  return {input.dim(0),
          input.dim(3),
          axis_of(input.dim(1), output.dim(1), 0, 0, 1, 0, 0),
          axis_of(input.dim(2), output.dim(2), 0, 0, 1, 0, 0),
          input.pitch(),
          output.pitch(),
          input.pitch()};
}

std::int64_t pixels_of(const TensorView& image) { return image.dim(1) * image.dim(2); }

void run_max(const KernelArgs& args) noexcept {
  max_pool(queue_of(args), image_of(args.inputs[0]),
           shape_of(op_of<ops::MaxPool2d>(args), args.inputs[0], args.outputs[0]),
           args.inputs[0].data, args.outputs[0].data);
}

void run_max_grad(const KernelArgs& args) noexcept {
  PoolShape shape = shape_of(op_of<ops::MaxPool2dGrad>(args).pool, args.inputs[0], args.inputs[1]);
  shape.grad_pitch = args.outputs[0].pitch();
  max_pool_grad(queue_of(args), image_of(args.inputs[0]), shape, args.inputs[0].data,
                args.inputs[1].data, args.outputs[0].data, args.scratch);
}

void run_avg(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::AvgPool2d>(args);
  avg_pool(queue_of(args), image_of(args.inputs[0]), shape_of(op, args.inputs[0], args.outputs[0]),
           op.count_include_pad, args.inputs[0].data, args.outputs[0].data);
}

void run_avg_grad(const KernelArgs& args) noexcept {
  const auto& pool = op_of<ops::AvgPool2dGrad>(args).pool;
  avg_pool_grad(queue_of(args), image_of(args.inputs[0]),
                shape_of(pool, args.outputs[0], args.inputs[0]), pool.count_include_pad,
                args.inputs[0].data, args.outputs[0].data);
}

void run_adaptive(const KernelArgs& args) noexcept {
  adaptive_avg_pool(queue_of(args), image_of(args.inputs[0]),
                    even_shape(args.inputs[0], args.outputs[0]), args.inputs[0].data,
                    args.outputs[0].data);
}

void run_adaptive_grad(const KernelArgs& args) noexcept {
  adaptive_avg_pool_grad(queue_of(args), image_of(args.inputs[0]),
                         even_shape(args.outputs[0], args.inputs[0]), args.inputs[0].data,
                         args.outputs[0].data);
}

void run_global_avg(const KernelArgs& args) noexcept {
  const TensorView& input = args.inputs[0];
  global_avg_pool(queue_of(args), image_of(input), input.dim(0), pixels_of(input), input.dim(3),
                  input.pitch(), input.data, args.outputs[0].data, args.scratch);
}

void run_global_avg_grad(const KernelArgs& args) noexcept {
  const TensorView& grad_input = args.outputs[0];
  global_avg_pool_grad(queue_of(args), image_of(grad_input), grad_input.dim(0),
                       pixels_of(grad_input), grad_input.dim(3), args.inputs[0].data,
                       grad_input.data);
}

void run_global_max(const KernelArgs& args) noexcept {
  const TensorView& input = args.inputs[0];
  global_max_pool(queue_of(args), image_of(input), input.dim(0), pixels_of(input), input.dim(3),
                  input.data, args.outputs[0].data);
}

void run_global_max_grad(const KernelArgs& args) noexcept {
  const TensorView& input = args.inputs[0];
  global_max_pool_grad(queue_of(args), image_of(input), input.dim(0), pixels_of(input),
                       input.dim(3), input.data, args.inputs[1].data, args.outputs[0].data);
}

Choice take(KernelFunction run, const Problem& problem, std::int64_t scratch_bytes = 0) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return {run, scratch(scratch_bytes)};
}

}  // namespace

Choice select(const ops::MaxPool2d&, const Problem& problem) {
  return strided(take(run_max, problem), 1, 1);
}
Choice select(const ops::MaxPool2dGrad& op, const Problem& problem) {
  const TensorView input{nullptr, problem.inputs.data(), 0};
  const TensorView output{nullptr, &problem.inputs[1], 0};
  return strided(
      take(run_max_grad, problem, max_pool_grad_scratch_bytes(shape_of(op.pool, input, output))), 3,
      1);
}
Choice select(const ops::AvgPool2d&, const Problem& problem) {
  return strided(take(run_avg, problem), 1, 1);
}
Choice select(const ops::AvgPool2dGrad&, const Problem& problem) {
  return strided(take(run_avg_grad, problem), 1, 1);
}
Choice select(const ops::AdaptiveAvgPool2d&, const Problem& problem) {
  return strided(take(run_adaptive, problem), 1, 1);
}
Choice select(const ops::AdaptiveAvgPool2dGrad&, const Problem& problem) {
  return take(run_adaptive_grad, problem);
}
Choice select(const ops::GlobalAvgPool2d&, const Problem& problem) {
  const Shape& input = problem.inputs[0].shape;
  return strided(take(run_global_avg, problem,
                      global_avg_pool_scratch_bytes(input[0], input[1] * input[2], input[3])),
                 1, 0);
}
Choice select(const ops::GlobalAvgPool2dGrad&, const Problem& problem) {
  return take(run_global_avg_grad, problem);
}
Choice select(const ops::GlobalMaxPool2d&, const Problem& problem) {
  return take(run_global_max, problem);
}
Choice select(const ops::GlobalMaxPool2dGrad&, const Problem& problem) {
  return take(run_global_max_grad, problem);
}
}  // namespace pycnn::cuda
