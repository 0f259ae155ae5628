#pragma once
#include "backends/cuda/conv2d_measure.h"
#include "backends/cuda/conv2d_problem.h"

// A task's tensors in one call, and our own kernels for it.
namespace pycnn::cuda {

struct ConvCall {
  const void* input;   // or what its gradient becomes
  const void* output;  // or its gradient
  const float* weight;
  const void* packed;  // the weights as the kernel reads them; null: as they are
  // The bias of the images' type, of which the epilogue has none then; null: it is there, if any.
  const void* packed_bias;
  float* grad_weight;
  float* grad_bias;  // null: none is wanted
  // Where the gradient of the weights is wanted in the images' type, by a plan that leaves it so
  // (library_kernel.h), and not in `grad_weight`; null: there.
  void* narrow_grad_weight;
  ConvEpilogue epilogue;
  int input_step, output_step, residual_step, gate_step;  // as ConvShape's
  Measure measure;
};

template <class OpType>
ConvCall call_of(const KernelArgs& args) {
  const auto& op = op_of<OpType>(args);
  ConvCall call{};
  const auto step = [](const TensorView& view) { return static_cast<int>(view.pixel_pitch); };
  if constexpr (requires { op.epilogue; }) {
    call.input = args.inputs[0].data;
    call.output = args.outputs[0].data;
    call.input_step = step(args.inputs[0]);
    call.output_step = step(args.outputs[0]);
    if (op.epilogue.residual) call.residual_step = step(args.inputs.back());
    call.weight = args.inputs[1].as<const float>();
    call.epilogue = epilogue_of(op.epilogue, args);
    if (op.epilogue.moments) {
      call.measure.kind = MeasureKind::kMoments;
      call.measure.result = args.outputs[1].as<float>();
    }
  } else if constexpr (requires { op.bias; }) {
    call.input = args.inputs[0].data;
    call.output = args.inputs[1].data;
    call.input_step = step(args.inputs[0]);
    call.output_step = step(args.inputs[1]);
    if (is_narrow(image_of(args.outputs[0])))
      call.narrow_grad_weight = args.outputs[0].data;
    else
      call.grad_weight = args.outputs[0].as<float>();
    call.grad_bias = op.bias ? args.outputs[1].as<float>() : nullptr;
  } else {
    call.input = args.outputs[0].data;
    call.output = args.inputs[0].data;
    call.input_step = step(args.outputs[0]);
    call.output_step = step(args.inputs[0]);
    call.weight = args.inputs[1].as<const float>();
    if constexpr (requires { op.finish; }) {
      std::size_t next = 2;
      if (op.finish.residual) {
        call.residual_step = step(args.inputs[next]);
        call.epilogue.residual = args.inputs[next++].data;
      }
      if (op.finish.relu) {
        call.gate_step = step(args.inputs[next]);
        call.epilogue.gate = args.inputs[next++].data;
        call.epilogue.curve = {CurveKind::kRelu};
      }
      if (op.finish.signs) call.epilogue.signs = args.inputs[next].as<const std::uint8_t>();
      const std::span<const TensorView> norm = args.inputs.last(op.sums.wanted ? 4 : 0);
      if (op.sums.wanted)
        call.measure = {MeasureKind::kSums,
                        norm[0].data,
                        norm[0].pitch(),
                        norm[1].as<const float>(),
                        norm[2].as<const float>(),
                        norm[3].as<const float>(),
                        curve_of(op.sums.activation, op.sums.slope),
                        args.outputs[1].as<float>()};
    }
  }
  return call;
}

// Of a gradient's inputs that of the batch norm whose sums are wanted: alone it may be a part of a
// larger image where passes behind a kernel do the rest.
inline std::uint32_t norm_input(const ConvTask& task) {
  if (task.measure != MeasureKind::kSums) return 0;
  return 1u << (2 + (task.residual ? 1 : 0) + (task.gate ? 1 : 0) + (task.signs ? 1 : 0));
}

// What a pass behind a convolution wants that does not measure itself.
inline std::int64_t measure_behind_scratch_bytes(const ConvTask& task) {
  if (task.measure == MeasureKind::kNothing) return 0;
  return measure_scratch_bytes(pass_tiles(result_rows(task)), result_channels(task));
}
// What becomes of a result behind a kernel that stores the plain one of a gradient and measures
// nothing, in one pass over it where there is one.
inline void finish_behind(DeviceQueue& queue, const ConvTask& task, const ConvCall& call,
                          std::byte* scratch) {
  const std::int64_t rows = result_rows(task), channels = result_channels(task);
  void* const gradient = const_cast<void*>(call.input);
  const bool is_finished = task.direction == Direction::kGradInput && (task.residual || task.gate);
  if (is_finished && task.measure == MeasureKind::kSums)
    return finish_and_sum_pass(queue, task.image, call.epilogue, call.measure, gradient, rows,
                               channels, scratch);
  if (is_finished) conv2d_gradient_epilogue(queue, task.image, task.shape, call.epilogue, gradient);
  if (task.measure == MeasureKind::kNothing) return;
  const void* const result = task.measure == MeasureKind::kMoments ? call.output : call.input;
  measure_pass(queue, task.image, call.measure, result, rows, channels, scratch);
}

// How weights are made ready by a step of their own: lives in Kernel::state.
struct PackTask {
  Arithmetic arithmetic;
  ConvShape shape;
  PackForm form;
};
inline PackTask own_packing(const ConvTask& task, bool tf32) {
  return {arithmetic_of(task.image, tf32), task.shape,
          task.direction == Direction::kGradInput ? PackForm::kBackward : PackForm::kForward};
}
// 0: they are read as they lie.
inline std::int64_t own_packed_bytes(const ConvTask& task, bool tf32) {
  if (task.direction == Direction::kGradWeight) return 0;
  const PackTask packing = own_packing(task, tf32);
  return conv2d_packed_bytes(packing.arithmetic, packing.shape, packing.form);
}
// Of as many a packing costs more memory than a launch is worth: joined ones live from the first
// layer to the last.
constexpr std::int64_t kManyWeights = std::int64_t{1} << 20;
// Of `bytes`, of input 1. One launch makes those of many layers unless `alone` (conv2d.cpp).
PackedInput packed_input(const PackTask& task, std::int64_t bytes, const char* format, bool alone);

inline std::int64_t own_scratch_bytes(const ConvTask& task, bool tf32, bool packed = false) {
  const Arithmetic arithmetic = arithmetic_of(task.image, tf32);
  switch (task.direction) {
    case Direction::kForward:
      return conv2d_scratch_bytes(arithmetic, task.shape, task.measure, packed);
    case Direction::kGradInput:
      return conv2d_grad_input_scratch_bytes(arithmetic, task.shape, task.measure, packed);
    case Direction::kGradWeight:
      return conv2d_grad_weight_scratch_bytes(arithmetic, task.shape, task.bias);
  }
  return 0;
}

// A packing of the call's weights is our own kernel's.
inline void run_own(DeviceQueue& queue, const ConvTask& task, bool tf32, const ConvCall& call,
                    void* scratch) {
  const Arithmetic arithmetic = arithmetic_of(task.image, tf32);
  ConvShape shape = task.shape;
  shape.input_step = call.input_step;
  shape.output_step = call.output_step;
  shape.residual_step = call.residual_step;
  shape.gate_step = call.gate_step;
  switch (task.direction) {
    case Direction::kForward:
      return conv2d(queue, arithmetic, shape, call.input, {call.weight, call.packed}, call.epilogue,
                    call.measure, const_cast<void*>(call.output), scratch);
    case Direction::kGradInput:
      return conv2d_grad_input(queue, arithmetic, shape, call.output, {call.weight, call.packed},
                               call.epilogue, call.measure, const_cast<void*>(call.input), scratch);
    case Direction::kGradWeight:
      return conv2d_grad_weight(queue, arithmetic, shape, call.input, call.output, call.grad_weight,
                                call.grad_bias, scratch);
  }
}

}  // namespace pycnn::cuda
