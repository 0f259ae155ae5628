#include "backends/cuda/take_windows.h"

#include <algorithm>
#include <memory>

#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

void run_take_windows(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::TakeWindows>(args);
  const TensorView& images = args.inputs[0];
  const TensorView& output = args.outputs[0];
  TakeWindowsParams p{};
  p.count = count_of(output);
  if (p.count == 0) return;
  p.images = images.data;
  p.bytes = images.spec->dtype == DType::kUInt8;
  p.places = args.inputs[1].as<const std::int64_t>();
  p.output = output.data;
  p.images_count = images.dim(0);
  p.height = images.dim(1);
  p.width = images.dim(2);
  p.channels = static_cast<int>(images.dim(3));
  p.window_height = static_cast<int>(op.size[0]);
  p.window_width = static_cast<int>(op.size[1]);
  p.pixel_items = Divider(images.dim(3));
  p.row_items = Divider(op.size[1] * images.dim(3));
  p.window_items = WideDivider(op.size[0] * op.size[1] * images.dim(3));
  p.fill = static_cast<float>(op.fill);
  p.box_fills = static_cast<int>(std::max<std::size_t>(op.box_fill.size(), 1));
  p.box_table = reinterpret_cast<const float*>(args.plan);
  for (std::size_t c = 0; c < op.box_fill.size() && p.box_table == nullptr; ++c)
    p.box_fill[c] = static_cast<float>(op.box_fill[c]);
  if (const void* const state = static_cast<const DeviceKernelArgs&>(args).state) {
    p.normalizes = true;
    p.factors = *static_cast<const ImageFactors*>(state);
  }
  if (output.spec->dtype == DType::kUInt8)
    take_windows(queue_of(args), p);
  else
    take_windows(queue_of(args), image_of(output), p);
}

// Normalising, and then rounding to what a net computes with: a net reads a batch as it is stored.
bool normalizes_result(Kernel& kernel, const Op&, const Neighbour& neighbour) noexcept {
  if (!neighbour.is_reader) return false;
  if (const auto* const op = std::get_if<ops::NormalizeImage>(neighbour.op)) {
    const TensorSpec& images = neighbour.outputs[0];
    if (kernel.state != nullptr || images.dtype != DType::kFloat32 || lacks_factors(*op, images))
      return false;
    kernel.state = std::make_shared<const ImageFactors>(factors_of(*op, images));
    return true;
  }
  // Once only: a second cast would undo the first's rounding.
  return kernel.state != nullptr && is_cast(neighbour) &&
         neighbour.inputs[0].dtype == DType::kFloat32;
}

}  // namespace

Choice select(const ops::TakeWindows& op, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  const Shape& windows = problem.outputs[0].shape;
  if (windows[1] * windows[2] >= kMost || windows[1] * windows[2] * windows[3] >= kMost)
    return refuse("windows of 2^31 elements or more");
  Choice choice{run_take_windows};
  if (op.box_fill.size() > static_cast<std::size_t>(kMaxImageChannels))
    choice.plan = bytes_of(std::vector<float>(op.box_fill.begin(), op.box_fill.end()));
  return absorbing(std::move(choice), problem, normalizes_result);
}

}  // namespace pycnn::cuda
