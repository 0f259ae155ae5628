#include "backends/cuda/pool.h"

#include <memory>
#include <vector>

#include "backends/cuda/batch_norm_max_pool.h"
#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

PoolAxis axis_of(std::int64_t input, std::int64_t output, std::int64_t kernel, std::int64_t stride,
                 std::int64_t dilation, std::int64_t before, std::int64_t after) {
  return {input, output, kernel, stride, dilation, before, after};
}

Pair dilation_of(const ops::MaxPool2d& pool) { return pool.dilation; }
Pair dilation_of(const ops::AvgPool2d&) { return {1, 1}; }

// What steps around it leave to a kernel, in Kernel::state. Null: nothing.
struct PoolForm {
  bool planar_output = false;  // it, or its gradient, is (N, C, H, W)
  bool passes = false;         // the gradient goes back through an activation, by the last input
  Curve curve = {};
};

PoolForm form_of(const KernelArgs& args) {
  const void* const state = static_cast<const DeviceKernelArgs&>(args).state;
  return state != nullptr ? *static_cast<const PoolForm*>(state) : PoolForm{};
}

PoolPassed passed_of(const KernelArgs& args) {
  const PoolForm form = form_of(args);
  if (!form.passes) return {};
  return {args.inputs.back().data, args.inputs.back().pitch(), form.curve};
}

// Of the forward op's input and output.
template <class Pool>
PoolShape shape_of(const Pool& pool, const TensorView& input, const TensorView& output,
                   const PoolForm& form = {}) {
  const Pair dilation = dilation_of(pool);
  const int rows = form.planar_output ? 2 : 1;  // of the output's axes
  return {input.dim(0),
          input.dim(3),
          axis_of(input.dim(1), output.dim(rows), pool.kernel_size[0], pool.stride[0], dilation[0],
                  pool.padding.top, pool.padding.bottom),
          axis_of(input.dim(2), output.dim(rows + 1), pool.kernel_size[1], pool.stride[1],
                  dilation[1], pool.padding.left, pool.padding.right),
          input.pitch(),
          output.pitch(),
          input.pitch(),
          form.planar_output};
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
           shape_of(op_of<ops::MaxPool2d>(args), args.inputs[0], args.outputs[0], form_of(args)),
           args.inputs[0].data, args.outputs[0].data);
}

void run_max_grad(const KernelArgs& args) noexcept {
  PoolShape shape =
      shape_of(op_of<ops::MaxPool2dGrad>(args).pool, args.inputs[0], args.inputs[1], form_of(args));
  shape.grad_pitch = args.outputs[0].pitch();
  max_pool_grad(queue_of(args), image_of(args.inputs[0]), shape, args.inputs[0].data,
                args.inputs[1].data, passed_of(args), args.outputs[0].data, args.scratch);
}

void run_norm_max(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::BatchNormMaxPool>(args);
  const auto vector = [&](std::size_t input) { return args.inputs[input].as<const float>(); };
  batch_norm_max_pool(
      queue_of(args), image_of(args.inputs[0]),
      shape_of(op.pool, args.inputs[0], args.outputs[0], form_of(args)),
      {args.inputs[0].data, vector(1), vector(2), vector(3), curve_of(op.activation, op.slope)},
      args.outputs[0].data);
}

void run_norm_max_grad(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::BatchNormMaxPoolGrad>(args).forward;
  const auto vector = [&](std::size_t input) { return args.inputs[input].as<const float>(); };
  const TensorView &input = args.inputs[0], &grad_output = args.inputs[6];
  GradientParams p{};
  p.input = input.data;
  p.grad_output = grad_output.data;
  p.scale = vector(1);
  p.mean = vector(2);
  p.inv_std = vector(3);
  p.factor = vector(4);
  p.offset = vector(5);
  p.curve = curve_of(op.activation, op.slope);
  p.through_statistics = true;
  p.grad_input = args.outputs[0].data;
  p.grad_scale = args.outputs[1].as<float>();
  p.grad_shift = args.outputs[2].as<float>();
  p.rows = rows_of(*input.spec);
  p.channels = channels_of(*input.spec);
  p.input_pitch = input.pitch();
  p.grad_input_pitch = args.outputs[0].pitch();
  batch_norm_max_pool_grad(queue_of(args), image_of(input),
                           shape_of(op.pool, input, grad_output, form_of(args)), p, args.scratch);
}

void run_avg(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::AvgPool2d>(args);
  avg_pool(queue_of(args), image_of(args.inputs[0]),
           shape_of(op, args.inputs[0], args.outputs[0], form_of(args)), op.count_include_pad,
           args.inputs[0].data, args.outputs[0].data);
}

void run_avg_grad(const KernelArgs& args) noexcept {
  const auto& pool = op_of<ops::AvgPool2dGrad>(args).pool;
  avg_pool_grad(queue_of(args), image_of(args.inputs[0]),
                shape_of(pool, args.outputs[0], args.inputs[0], form_of(args)),
                pool.count_include_pad, args.inputs[0].data, passed_of(args), args.outputs[0].data);
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

PoolForm form_of(const Kernel& kernel) {
  return kernel.state != nullptr ? *static_cast<const PoolForm*>(kernel.state.get()) : PoolForm{};
}

bool turns(const Neighbour& neighbour, const std::vector<std::int64_t>& permutation) {
  const auto* const op = std::get_if<ops::Transpose>(neighbour.op);
  return op != nullptr && op->permutation == permutation;
}

// A result that is flattened as PyTorch flattens is written as it is wanted.
bool turns_result(Kernel& kernel, const Op&, const Neighbour& neighbour) noexcept {
  PoolForm form = form_of(kernel);
  if (!neighbour.is_reader || form.planar_output || !turns(neighbour, {0, 3, 1, 2})) return false;
  form.planar_output = true;
  kernel.state = std::make_shared<PoolForm>(form);
  kernel.strided_outputs = 0;
  return true;
}

// A gradient that comes the other way round, as input kPlace, is read as it is.
template <int kPlace>
bool turns_gradient(Kernel& kernel, const Op&, const Neighbour& neighbour) noexcept {
  PoolForm form = form_of(kernel);
  if (neighbour.is_reader || neighbour.place != kPlace || form.planar_output ||
      !turns(neighbour, {0, 2, 3, 1}))
    return false;
  form.planar_output = true;
  kernel.state = std::make_shared<PoolForm>(form);
  kernel.strided_inputs &= ~(1u << kPlace);
  return true;
}

// Its gradient is read likewise, and goes back through the activation in front of the pool.
bool finishes_gradient(Kernel& kernel, const Op& op, const Neighbour& neighbour) noexcept {
  PoolForm form = form_of(kernel);
  const bool of_max = std::holds_alternative<ops::MaxPool2dGrad>(op);
  const int gradient = of_max ? 1 : 0;
  if (!neighbour.is_reader) {
    if (neighbour.place != gradient || form.planar_output || !turns(neighbour, {0, 2, 3, 1}))
      return false;
    form.planar_output = true;
    kernel.strided_inputs &= ~(1u << gradient);
  } else {
    const auto* const activation = std::get_if<ops::ActivationGrad>(neighbour.op);
    if (activation == nullptr || form.passes || !has_curve(activation->kind) ||
        neighbour.inputs[0].dtype != neighbour.inputs[1].dtype)
      return false;
    form.passes = true;
    form.curve = curve_of(activation->kind, activation->slope);
    kernel.strided_inputs |= 1u << (gradient + 1);
  }
  kernel.state = std::make_shared<PoolForm>(form);
  return true;
}

// A winner is a byte.
const char* unfit_for_norm(const ops::BatchNormMaxPool& op) {
  const Pair& window = op.pool.kernel_size;
  if (window[0] > 254 / window[1]) return "the window has more than 254 taps";
  return has_curve(op.activation) ? nullptr : kNoCurve;
}

}  // namespace

Choice select(const ops::MaxPool2d&, const Problem& problem) {
  return absorbing(strided(take(run_max, problem), 1, 1), problem, turns_result);
}
Choice select(const ops::MaxPool2dGrad& op, const Problem& problem) {
  const TensorView input{nullptr, problem.inputs.data(), 0};
  const TensorView output{nullptr, &problem.inputs[1], 0};
  return absorbing(strided(take(run_max_grad, problem,
                                max_pool_grad_scratch_bytes(shape_of(op.pool, input, output))),
                           3, 1),
                   problem, finishes_gradient);
}
Choice select(const ops::BatchNormMaxPool& op, const Problem& problem) {
  if (const char* const reason = unfit_for_norm(op)) return refuse(reason);
  return absorbing(strided(take(run_norm_max, problem), 1, 1), problem, turns_result);
}
Choice select(const ops::BatchNormMaxPoolGrad& op, const Problem& problem) {
  if (const char* const reason = unfit_for_norm(op.forward)) return refuse(reason);
  const TensorView input{nullptr, problem.inputs.data(), 0};
  const TensorView output{nullptr, &problem.inputs[6], 0};
  return absorbing(
      strided(
          take(run_norm_max_grad, problem,
               batch_norm_max_pool_grad_scratch_bytes(shape_of(op.forward.pool, input, output))),
          1u << 0 | 1u << 6, 1),
      problem, turns_gradient<6>);
}
Choice select(const ops::AvgPool2d&, const Problem& problem) {
  return absorbing(strided(take(run_avg, problem), 1, 1), problem, turns_result);
}
Choice select(const ops::AvgPool2dGrad&, const Problem& problem) {
  return absorbing(strided(take(run_avg_grad, problem), 1, 1), problem, finishes_gradient);
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
