#include "backends/cuda/conv2d_parts.h"

#include "backends/cuda/elementwise.h"

namespace pycnn::cuda {
namespace {

std::int64_t input_pixels(const ConvShape& s) {
  return std::int64_t{s.images} * s.height * s.width;
}

std::int64_t bytes_of(const ConvTask& task, int step, std::int64_t pixels, int channels) {
  if (step == 0) return 0;
  return (pixels * channels * (is_narrow(task.image) ? 2 : 4) + 255) / 256 * 256;
}

// Where the scratch has what, as far as it is apart.
struct GatherLayout {
  std::int64_t output = 0, residual = 0, bytes = 0;  // the input is first
};
GatherLayout layout_of(const ConvTask& task) {
  const ConvShape& s = task.shape;
  GatherLayout layout;
  layout.output = bytes_of(task, s.input_step, input_pixels(s), s.in_channels);
  layout.residual = layout.output + bytes_of(task, s.output_step, s.pixels(), s.out_channels);
  layout.bytes = layout.residual + bytes_of(task, s.residual_step, s.pixels(), s.out_channels);
  return layout;
}

// `step` is 0 where pixels follow one another.
struct Place {
  void* data;
  int step;
};
void move(DeviceQueue& queue, Image image, const Place& from, const Place& to, std::int64_t pixels,
          std::int64_t channels) {
  const auto pitch = [&](const Place& place) { return place.step != 0 ? place.step : channels; };
  copy_parts(queue, image,
             {from.data, nullptr, to.data, pixels, channels, pitch(from), 0, pitch(to)});
}

}  // namespace

ConvTask gathered(ConvTask task) {
  task.shape.input_step = task.shape.output_step = task.shape.residual_step = 0;
  return task;
}

std::int64_t gathered_scratch_bytes(const ConvTask& task) { return layout_of(task).bytes; }

void run_gathered(DeviceQueue& queue, const ConvTask& task, const ConvCall& call,
                  std::byte* scratch, const ConvRun& inner) {
  const ConvShape& s = task.shape;
  const GatherLayout layout = layout_of(task);
  ConvCall whole = call;
  whole.measure = {};
  whole.input_step = whole.output_step = whole.residual_step = 0;
  const Place input{const_cast<void*>(call.input), s.input_step};
  const Place output{const_cast<void*>(call.output), s.output_step};
  if (input.step != 0) {
    whole.input = scratch;
    if (task.direction != Direction::kGradInput)
      move(queue, task.image, input, {scratch, 0}, input_pixels(s), s.in_channels);
  }
  if (output.step != 0) {
    whole.output = scratch + layout.output;
    if (task.direction != Direction::kForward)
      move(queue, task.image, output, {scratch + layout.output, 0}, s.pixels(), s.out_channels);
  }
  if (s.residual_step != 0) {
    whole.epilogue.residual = scratch + layout.residual;
    move(queue, task.image, {const_cast<void*>(call.epilogue.residual), s.residual_step},
         {scratch + layout.residual, 0}, s.pixels(), s.out_channels);
  }
  inner(whole, scratch + layout.bytes);
  if (input.step != 0 && task.direction == Direction::kGradInput)
    move(queue, task.image, {scratch, 0}, input, input_pixels(s), s.in_channels);
  if (output.step != 0 && task.direction == Direction::kForward)
    move(queue, task.image, {scratch + layout.output, 0}, output, s.pixels(), s.out_channels);
}

}  // namespace pycnn::cuda
