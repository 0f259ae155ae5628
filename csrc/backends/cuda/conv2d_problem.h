#pragma once
#include <string>

#include "backends/cuda/conv2d.h"
#include "backends/cuda/cudnn_graph.h"
#include "backends/cuda/glue.h"

// Convolutions as kernels are chosen for them, from the ops.
namespace pycnn::cuda {

struct ConvTask {
  Direction direction = Direction::kForward;
  Image image = Image::kFloat32;
  ConvShape shape{};
  int bottom = 0, right = 0;  // padding; top and left are in the shape
  bool bias = false, residual = false;
  bool gate = false;     // of a gradient: it goes back through an activation
  bool signs = false;    // whose result's signs are there, too
  Curve curve{};         // that one, or the result's own
  bool winograd = true;  // Problem::winograd
  MeasureKind measure = MeasureKind::kNothing;
  Curve norm_curve{};  // kSums
  bool tf32 = false;   // Problem::tf32
};

// Whether each result is a product of one pixel's channels, as a dense layer's.
inline bool is_product(const ConvTask& task) {
  const ConvShape& s = task.shape;
  return s.kernel_height == 1 && s.kernel_width == 1 && s.stride_y == 1 && s.stride_x == 1 &&
         s.groups == 1 && s.top == 0 && s.left == 0 && task.bottom == 0 && task.right == 0;
}

// What a library's choice depends on, for the key of what is kept.
inline std::string task_numbers(const ConvTask& task, bool tf32) {
  const ConvShape& s = task.shape;
  std::string text;
  for (const int number : {static_cast<int>(task.direction),
                           static_cast<int>(task.image),
                           s.images,
                           s.height,
                           s.width,
                           s.in_channels,
                           s.out_height,
                           s.out_width,
                           s.out_channels,
                           s.kernel_height,
                           s.kernel_width,
                           s.stride_y,
                           s.stride_x,
                           s.top,
                           s.left,
                           task.bottom,
                           task.right,
                           s.dilation_y,
                           s.dilation_x,
                           s.groups,
                           task.bias ? 1 : 0,
                           task.residual ? 1 : 0,
                           task.gate ? 1 : 0,
                           static_cast<int>(task.curve.kind),
                           tf32 ? 1 : 0,
                           task.winograd ? 1 : 0,
                           static_cast<int>(task.measure),
                           static_cast<int>(task.norm_curve.kind)})
    text += " " + std::to_string(number);
  if (task.signs) text += " signs";
  if (s.output_step != 0) text += " apart " + std::to_string(s.output_step);
  return text;
}

// `input`, `output` and `weight` are the shapes of the forward op.
template <class OpType>
ConvShape shape_of(const OpType& op, const Shape& input, const Shape& weight, const Shape& output) {
  const auto narrow_size = [](std::int64_t size) { return static_cast<int>(size); };
  ConvShape s{};
  s.images = narrow_size(input[0]);
  s.height = narrow_size(input[1]);
  s.width = narrow_size(input[2]);
  s.in_channels = narrow_size(input[3]);
  s.out_height = narrow_size(output[1]);
  s.out_width = narrow_size(output[2]);
  s.out_channels = narrow_size(output[3]);
  s.kernel_height = narrow_size(weight[1]);
  s.kernel_width = narrow_size(weight[2]);
  s.stride_y = narrow_size(op.stride[0]);
  s.stride_x = narrow_size(op.stride[1]);
  s.top = narrow_size(op.padding.top);
  s.left = narrow_size(op.padding.left);
  s.dilation_y = narrow_size(op.dilation[0]);
  s.dilation_x = narrow_size(op.dilation[1]);
  s.groups = narrow_size(op.groups);
  return s;
}

template <class OpType>
ConvTask task_of(Direction direction, const OpType& op, const Shape& input, const Shape& weight,
                 const Shape& output, DType image) {
  ConvTask task;
  task.direction = direction;
  task.image = image_of(image);
  task.shape = shape_of(op, input, weight, output);
  task.bottom = static_cast<int>(op.padding.bottom);
  task.right = static_cast<int>(op.padding.right);
  return task;
}

inline ConvTask task_of(const ops::Conv2d& op, const Problem& problem) {
  ConvTask task = task_of(Direction::kForward, op, problem.inputs[0].shape, problem.inputs[1].shape,
                          problem.outputs[0].shape, problem.inputs[0].dtype);
  task.residual = op.epilogue.residual;
  task.bias = problem.inputs.size() > (task.residual ? 3u : 2u);
  task.curve = curve_of(op.epilogue.activation, op.epilogue.slope);
  if (op.epilogue.moments) task.measure = MeasureKind::kMoments;
  return task;
}
inline ConvTask task_of(const ops::Conv2dGradInput& op, const Problem& problem) {
  ConvTask task =
      task_of(Direction::kGradInput, op, problem.outputs[0].shape, problem.inputs[1].shape,
              problem.inputs[0].shape, problem.inputs[0].dtype);
  task.residual = op.finish.residual;
  task.gate = op.finish.relu;
  task.signs = op.finish.signs;
  if (task.gate) task.curve = {CurveKind::kRelu};
  if (op.sums.wanted) task.measure = MeasureKind::kSums;
  task.norm_curve = curve_of(op.sums.activation, op.sums.slope);
  return task;
}

// Pixels and channels of what the task computes.
inline std::int64_t result_rows(const ConvTask& task) {
  const ConvShape& s = task.shape;
  return task.direction == Direction::kForward ? s.pixels()
                                               : std::int64_t{s.images} * s.height * s.width;
}
inline std::int64_t result_channels(const ConvTask& task) {
  return task.direction == Direction::kForward ? task.shape.out_channels : task.shape.in_channels;
}
inline ConvTask task_of(const ops::Conv2dGradWeight& op, const Problem& problem) {
  ConvTask task =
      task_of(Direction::kGradWeight, op, problem.inputs[0].shape, problem.outputs[0].shape,
              problem.inputs[1].shape, problem.inputs[0].dtype);
  task.bias = op.bias;
  return task;
}

// A dense layer as a convolution of images of one pixel.
inline ConvShape dense_shape(std::int64_t rows, std::int64_t inputs, std::int64_t outputs) {
  ConvShape s{};
  s.images = static_cast<int>(rows);
  s.height = s.width = s.out_height = s.out_width = s.kernel_height = s.kernel_width = 1;
  s.in_channels = static_cast<int>(inputs);
  s.out_channels = static_cast<int>(outputs);
  s.stride_y = s.stride_x = s.dilation_y = s.dilation_x = s.groups = 1;
  return s;
}

inline ConvShape dense_weight_shape(const TensorSpec& input, const TensorSpec& grad_output) {
  return dense_shape(rows_of(grad_output), channels_of(input), channels_of(grad_output));
}

inline ConvTask task_of(const ops::Dense& op, const Problem& problem) {
  ConvTask task;
  task.image = image_of(problem.inputs[0].dtype);
  task.shape = dense_weight_shape(problem.inputs[0], problem.outputs[0]);
  task.residual = op.epilogue.residual;
  task.bias = problem.inputs.size() > (task.residual ? 3u : 2u);
  task.curve = curve_of(op.epilogue.activation, op.epilogue.slope);
  return task;
}
inline ConvTask task_of(const ops::DenseGradInput&, const Problem& problem) {
  ConvTask task;
  task.direction = Direction::kGradInput;
  task.image = image_of(problem.inputs[0].dtype);
  task.shape = dense_weight_shape(problem.outputs[0], problem.inputs[0]);
  return task;
}
inline ConvTask task_of(const ops::DenseGradWeight& op, const Problem& problem) {
  ConvTask task;
  task.direction = Direction::kGradWeight;
  task.image = image_of(problem.inputs[0].dtype);
  task.shape = dense_weight_shape(problem.inputs[0], problem.inputs[1]);
  task.bias = op.bias;
  return task;
}

// As it may be computed.
template <class OpType>
ConvTask wanted_task(const OpType& op, const Problem& problem) {
  ConvTask task = task_of(op, problem);
  task.winograd = problem.winograd;
  task.tf32 = problem.tf32;
  return task;
}

// The bias, if any, is input 2; the residual the last.
inline ConvEpilogue epilogue_of(const Epilogue& epilogue, const KernelArgs& args) {
  const std::size_t parameters = args.inputs.size() - (epilogue.residual ? 1 : 0);
  return {parameters > 2 ? args.inputs[2].as<const float>() : nullptr,
          epilogue.residual ? args.inputs.back().data : nullptr,
          curve_of(epilogue.activation, epilogue.slope)};
}

}  // namespace pycnn::cuda
