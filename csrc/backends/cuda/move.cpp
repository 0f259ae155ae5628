#include "backends/cuda/move.h"

#include <cstring>

#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

// Elements from one place of each axis to the next.
std::vector<std::int64_t> steps_of(const Shape& shape) {
  std::vector<std::int64_t> steps(shape.size());
  std::int64_t next = 1;
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    steps[axis] = next;
    next *= shape[axis];
  }
  return steps;
}

// Of a tensor whose pixels may lie apart.
std::vector<std::int64_t> steps_of(const TensorView& view) {
  std::vector<std::int64_t> steps = steps_of(view.spec->shape);
  const std::int64_t channels = channels_of(*view.spec);
  if (view.pixel_pitch == 0 || channels == 0) return steps;
  for (std::size_t axis = 0; axis + 1 < steps.size(); ++axis)
    steps[axis] = steps[axis] / channels * view.pixel_pitch;
  return steps;
}

// The box of `shape` between two tensors, each with its own steps and first element.
struct Side {
  const std::vector<std::int64_t>& steps;
  std::int64_t first = 0;
};
void copy(const KernelArgs& args, const TensorView& input, const Side& from, const Side& to,
          const Shape& shape) {
  const int bytes = item_size(input.spec->dtype);
  BoxParams p{};
  p.input = input.as<const std::byte>() + from.first * bytes;
  p.output = args.outputs[0].as<std::byte>() + to.first * bytes;
  p.axes = static_cast<int>(shape.size());
  p.count = 1;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    p.shape[axis] = shape[axis];
    p.input_step[axis] = from.steps[axis];
    p.output_step[axis] = to.steps[axis];
    p.count *= shape[axis];
  }
  copy_box(queue_of(args), bytes, p);
}

void run_broadcast(const KernelArgs& args) noexcept {
  const Shape& input = args.inputs[0].spec->shape;
  const Shape& output = args.outputs[0].spec->shape;
  const std::vector<std::int64_t> input_steps = steps_of(input), to = steps_of(output);
  std::vector<std::int64_t> from(output.size(), 0);
  const std::size_t missing = output.size() - input.size();
  for (std::size_t axis = 0; axis < input.size(); ++axis)
    if (input[axis] != 1) from[axis + missing] = input_steps[axis];
  copy(args, args.inputs[0], {from}, {to}, output);
}

void run_concat(const KernelArgs& args) noexcept {
  const Shape& output = args.outputs[0].spec->shape;
  const std::int64_t named = op_of<ops::Concat>(args).axis;
  const auto axis = static_cast<std::size_t>(
      named < 0 ? named + static_cast<std::int64_t>(output.size()) : named);
  const std::vector<std::int64_t> to = steps_of(args.outputs[0]);
  std::int64_t place = 0;
  for (const TensorView& input : args.inputs) {
    const std::vector<std::int64_t> from = steps_of(input);
    copy(args, input, {from}, {to, place * to[axis]}, input.spec->shape);
    place += input.spec->shape[axis];
  }
}

void run_slice(const KernelArgs& args) noexcept {
  const auto& begin = op_of<ops::Slice>(args).begin;
  const std::vector<std::int64_t> from = steps_of(args.inputs[0]);
  const std::vector<std::int64_t> to = steps_of(args.outputs[0]);
  std::int64_t first = 0;
  for (std::size_t axis = 0; axis < begin.size(); ++axis) first += begin[axis] * from[axis];
  copy(args, args.inputs[0], {from, first}, {to}, args.outputs[0].spec->shape);
}

std::uint32_t bits_of(float value, Image image) {
  std::uint32_t bits = 0;
  with_image(image, [&](auto element) {
    narrow(value, element);
    std::memcpy(&bits, &element, sizeof element);
  });
  return bits;
}

void run_pad(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Pad>(args);
  const TensorView& output = args.outputs[0];
  const auto value = static_cast<float>(op.value);
  fill(queue_of(args), output.data, item_size(output.spec->dtype), bits_of(value, image_of(output)),
       count_of(output));
  const std::vector<std::int64_t> from = steps_of(args.inputs[0].spec->shape);
  const std::vector<std::int64_t> to = steps_of(output.spec->shape);
  std::int64_t first = 0;
  for (std::size_t axis = 0; axis < op.before.size(); ++axis) first += op.before[axis] * to[axis];
  copy(args, args.inputs[0], {from}, {to, first}, args.inputs[0].spec->shape);
}

void run_reshape(const KernelArgs& args) noexcept {
  const Shape flat = {count_of(args.outputs[0])};
  const std::vector<std::int64_t> steps = {1};
  copy(args, args.inputs[0], {steps}, {steps}, flat);
}

void run_transpose(const KernelArgs& args) noexcept {
  const auto& permutation = op_of<ops::Transpose>(args).permutation;
  const std::vector<std::int64_t> input_steps = steps_of(args.inputs[0].spec->shape);
  const std::vector<std::int64_t> to = steps_of(args.outputs[0].spec->shape);
  std::vector<std::int64_t> from;
  for (const std::int64_t axis : permutation)
    from.push_back(input_steps[static_cast<std::size_t>(axis)]);
  copy(args, args.inputs[0], {from}, {to}, args.outputs[0].spec->shape);
}

ReduceParams reduce_params(const ops::Reduce& op, const Shape& shape) {
  const std::vector<std::int64_t> steps = steps_of(shape);
  ReduceParams p{};
  p.outputs = p.terms = 1;
  p.maximum = op.kind == Reduction::kMax;
  std::size_t next = 0;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (next < op.axes.size() && op.axes[next] == static_cast<std::int64_t>(axis)) {
      ++next;
      p.terms *= shape[axis];
      p.reduced_shape[p.reduced] = shape[axis];
      p.reduced_step[p.reduced++] = steps[axis];
    } else {
      p.outputs *= shape[axis];
      p.kept_shape[p.kept] = shape[axis];
      p.kept_step[p.kept++] = steps[axis];
    }
  }
  p.divisor = op.kind == Reduction::kMean ? static_cast<double>(p.terms) : 1.0;
  return p;
}

void run_reduce(const KernelArgs& args) noexcept {
  ReduceParams p = reduce_params(op_of<ops::Reduce>(args), args.inputs[0].spec->shape);
  p.input = args.inputs[0].as<const float>();
  p.output = args.outputs[0].as<float>();
  reduce(queue_of(args), p, args.scratch);
}

void run_arg_max(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::ArgMax>(args);
  const Shape& shape = args.inputs[0].spec->shape;
  const auto axis = static_cast<std::size_t>(
      op.axis < 0 ? op.axis + static_cast<std::int64_t>(shape.size()) : op.axis);
  ArgMaxParams p{};
  p.input = args.inputs[0].as<const float>();
  p.output = args.outputs[0].as<std::int64_t>();
  p.outputs = count_of(args.outputs[0]);
  p.size = shape[axis];
  p.inner = 1;
  for (std::size_t i = axis + 1; i < shape.size(); ++i) p.inner *= shape[i];
  p.last = op.last;
  arg_max(queue_of(args), p);
}

// Any element type is moved.
Choice take_box(KernelFunction run, const Problem& problem) {
  for (const Specs specs : {problem.inputs, problem.outputs})
    for (const TensorSpec& spec : specs)
      if (spec.shape.size() > kMaxBoxAxes) return refuse("more than 8 axes");
  return {run};
}

}  // namespace

Choice select(const ops::Broadcast&, const Problem& problem) {
  return take_box(run_broadcast, problem);
}
Choice select(const ops::Concat&, const Problem& problem) {
  return strided(take_box(run_concat, problem), ~0u, 1);
}
Choice select(const ops::Slice&, const Problem& problem) {
  return strided(take_box(run_slice, problem), 1, 1);
}
Choice select(const ops::Reshape&, const Problem& problem) {
  return take_box(run_reshape, problem);
}
Choice select(const ops::Transpose&, const Problem& problem) {
  return take_box(run_transpose, problem);
}

Choice select(const ops::Pad&, const Problem& problem) {
  if (!is_image_type(problem.inputs[0].dtype)) return refuse("no type of images");
  return take_box(run_pad, problem);
}
Choice select(const ops::Reduce& op, const Problem& problem) {
  if (const char* const reason = unfit_type(problem, true)) return refuse(reason);
  Choice choice = take_box(run_reduce, problem);
  if (choice.run != nullptr)
    choice.scratch_bytes =
        scratch(reduce_scratch_bytes(reduce_params(op, problem.inputs[0].shape)));
  return choice;
}
Choice select(const ops::ArgMax&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem, true)) return refuse(reason);
  return {run_arg_max};
}

}  // namespace pycnn::cuda
