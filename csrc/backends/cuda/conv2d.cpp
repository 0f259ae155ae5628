#include "backends/cuda/conv2d.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "backends/cuda/conv2d_call.h"
#include "backends/cuda/glue.h"
#include "backends/cuda/library_options.h"

namespace pycnn::cuda {
namespace {

// Pixels of all images, elements of one image and places within a window are counted by 32 bits;
// coordinates reach beyond an image by the padding and the window, and pixels beyond the last one
// by a tile.
constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max() - 255;
constexpr std::int64_t kLargest = kMost / 4, kLargestWindow = kMost / 16;

std::int64_t channels_or_one(const TensorSpec& spec) {
  return channels_of(spec) > 0 ? channels_of(spec) : 1;
}

const char* unfit_dense(const Problem& problem) {
  if (const char* const type = unfit_type(problem)) return type;
  for (const Specs specs : {problem.inputs, problem.outputs})
    for (const TensorSpec& spec : specs)
      if (rows_of(spec) > kMost || channels_of(spec) > kLargestWindow)
        return "a matrix has more than 2^31 rows or 2^27 columns";
  return nullptr;
}

// `weight`, of the problem's inputs or outputs, is no image. Strides, dilations and paddings have
// no bound of their own where one window fits.
template <class OpType>
const char* unfit_conv(const OpType& op, const Problem& problem, const TensorSpec& weight) {
  if (const char* const type = unfit_type(problem)) return type;
  for (const std::int64_t size :
       {op.stride[0], op.stride[1], op.dilation[0], op.dilation[1], op.padding.top,
        op.padding.bottom, op.padding.left, op.padding.right})
    if (size > kLargest) return "a stride, dilation or padding is more than 2^29";
  for (const Specs specs : {problem.inputs, problem.outputs})
    for (const TensorSpec& spec : specs) {
      if (spec.shape.size() != 4 || spec.shape[0] == 0) continue;
      const std::int64_t member = count_of(spec) / spec.shape[0];
      if (&spec == &weight && member > kLargestWindow)
        return "a window has more than 2^27 elements";
      if (member > kMost || count_of(spec) / channels_or_one(spec) > kMost)
        return "an image has more than 2^31 elements or all images more than 2^31 pixels";
    }
  return nullptr;
}

const char* unfit_epilogue(const Epilogue& epilogue) {
  return has_curve(epilogue.activation) ? nullptr : kNoCurve;
}

// Lives in Kernel::state.
struct OwnConv {
  ConvTask task;
  bool tf32;
  Curve passed = {};    // of a gradient
  bool passes = false;  // whether it goes back through that, the last input
  bool packed = false;  // whether the weights are packed by a step of their own
};

template <class OpType>
void run(const KernelArgs& args) noexcept {
  const auto& own = *static_cast<const OwnConv*>(static_cast<const DeviceKernelArgs&>(args).state);
  ConvCall call = call_of<OpType>(args);
  if (own.packed) call.packed = args.inputs[1].data;
  if (own.passes) {
    call.epilogue = {nullptr, nullptr, own.passed, args.inputs.back().data};
    call.gate_step = static_cast<int>(args.inputs.back().pixel_pitch);
  }
  run_own(queue_of(args), own.task, own.tf32, call, args.scratch);
}

// A gradient goes back through the activation before it is stored.
bool passes_gradient(Kernel& kernel, const Op&, const Neighbour& neighbour) noexcept {
  const auto* const op = std::get_if<ops::ActivationGrad>(neighbour.op);
  OwnConv own = *static_cast<const OwnConv*>(kernel.state.get());
  if (op == nullptr || !neighbour.is_reader || neighbour.place != 0 || own.passes ||
      own.task.residual || own.task.gate || !has_curve(op->kind) ||
      neighbour.inputs[0].dtype != neighbour.inputs[1].dtype)
    return false;
  own.passed = curve_of(op->kind, op->slope);
  own.passes = true;
  kernel.state = std::make_shared<OwnConv>(own);
  kernel.strided_inputs |= 1u << 2;
  return true;
}

const char* format_of(const PackTask& task) {
  static constexpr const char* kFormats[] = {
      "forward, float32",  "forward, tf32",  "forward, bfloat16",  "forward, float16",
      "backward, float32", "backward, tf32", "backward, bfloat16", "backward, float16"};
  return kFormats[(task.form == PackForm::kBackward ? 4 : 0) + static_cast<int>(task.arithmetic)];
}

// Of the inputs behind the weight those that are images: what is added, what gates, and of what is
// measured the batch norm's input.
std::uint32_t gradient_images(const ConvTask& task) {
  const int before = 2 + (task.residual ? 1 : 0) + (task.gate ? 1 : 0);
  return ((1u << before) - (1u << 2)) | norm_input(task);
}

template <class OpType>
Choice choose(const OpType& op, const Problem& problem) {
  const ConvTask task = wanted_task(op, problem);
  OwnConv own{task, library_options(task.tf32).tf32};
  // A kernel that was asked for by name packs its weights itself.
  const std::int64_t bytes = problem.pinned.empty() ? own_packed_bytes(own.task, own.tf32) : 0;
  own.packed = bytes > 0;
  Choice choice{run<OpType>, scratch(own_scratch_bytes(own.task, own.tf32, own.packed))};
  if (own.packed) {
    const PackTask packing = own_packing(own.task, own.tf32);
    choice.packed = packed_input(packing, bytes, format_of(packing), false);
  }
  choice.state = std::make_shared<OwnConv>(own);
  const std::uint32_t image = conv2d_reads_parts(own.task.shape) ? 1 : 0;
  switch (own.task.direction) {
    case Direction::kForward:
      return strided(std::move(choice),
                     image | (own.task.residual ? 1u << (problem.inputs.size() - 1) : 0), 1);
    case Direction::kGradInput:
      if (own.task.measure == MeasureKind::kNothing)
        choice = absorbing(std::move(choice), problem, passes_gradient);
      return strided(std::move(choice), 1 | gradient_images(own.task), 1);
    case Direction::kGradWeight:
      return strided(std::move(choice), image | 2, 0);
  }
  return choice;
}

// Whether an op that trains reads a part of a larger image where it is, and makes the gradient
// where that of the larger one has it. Plans of cuDNN do neither.
bool reads_part(const Op& op) {
  return std::holds_alternative<ops::BatchNormTrain>(op) ||
         std::holds_alternative<ops::Activation>(op) ||
         std::holds_alternative<ops::MaxPool2d>(op) || std::holds_alternative<ops::AvgPool2d>(op);
}

// What a concat joins would be a part of two images.
bool reads_part(const Siblings::Result& result) {
  return !result.is_kept && std::all_of(result.readers.begin(), result.readers.end(),
                                        [](const Op* reader) { return reads_part(*reader); });
}

}  // namespace

namespace {

ConvPacking packing_of(const PackTask& task, const TensorView& weight, const TensorView& packed) {
  return {task.shape, task.form, weight.as<const float>(), packed.data};
}

void run_pack(const KernelArgs& args) noexcept {
  const auto& task =
      *static_cast<const PackTask*>(static_cast<const DeviceKernelArgs&>(args).state);
  const ConvPacking packing = packing_of(task, args.inputs[0], args.outputs[0]);
  conv2d_pack(queue_of(args), task.arithmetic, &packing, 1);
}

void run_packs(const KernelArgs& args) noexcept {
  const auto& tasks =
      *static_cast<const std::vector<PackTask>*>(static_cast<const DeviceKernelArgs&>(args).state);
  ConvPacking together[kMostPackings];
  int count = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    together[count++] = packing_of(tasks[i], args.inputs[i], args.outputs[i]);
    const bool is_last = i + 1 == tasks.size() || tasks[i + 1].arithmetic != tasks[i].arithmetic;
    if (!is_last && count < kMostPackings) continue;
    conv2d_pack(queue_of(args), tasks[i].arithmetic, together, count);
    count = 0;
  }
}

Kernel join_packs(std::span<const Joining> steps) noexcept {
  auto tasks = std::make_shared<std::vector<PackTask>>();
  for (const Joining& step : steps)
    tasks->push_back(*static_cast<const PackTask*>(step.kernel->state.get()));
  Kernel kernel;
  kernel.run = run_packs;
  kernel.state = std::move(tasks);
  return kernel;
}

}  // namespace

PackedInput packed_input(const PackTask& task, std::int64_t bytes, const char* format, bool alone) {
  PackedInput packed;
  packed.input = 1;
  packed.bytes = scratch(bytes);
  packed.pack = run_pack;
  packed.format = format;
  packed.state = std::make_shared<PackTask>(task);
  if (conv2d_packing_rounds(task.arithmetic, task.shape, task.form))
    packed.rounded = task.arithmetic == Arithmetic::kFloat16 ? DType::kFloat16 : DType::kBFloat16;
  if (!alone && task.shape.weights() < kManyWeights) packed.join = join_packs;
  return packed;
}

// Whether a result of inference is read where it is: by our own kernels, and there is no telling
// whether a convolution is one.
bool reads_part_forward(const Siblings::Result& result) {
  return !result.is_kept &&
         std::all_of(result.readers.begin(), result.readers.end(), [](const Op* reader) {
           return std::holds_alternative<ops::Activation>(*reader) ||
                  std::holds_alternative<ops::MaxPool2d>(*reader) ||
                  std::holds_alternative<ops::AvgPool2d>(*reader);
         });
}

// Weights are joined once. Each sibling but one is spared reading the image and a launch, results
// that are copied are read and written by one.
bool merges_forward(const Siblings& siblings, std::int64_t pixels) {
  constexpr std::int64_t kLaunchBytes = std::int64_t{4} << 20;  // that move in the time of a launch
  std::int64_t launches = static_cast<std::int64_t>(siblings.results.size()) - 1;
  std::int64_t channels = launches * siblings.input.shape[3];
  for (const Siblings::Result& result : siblings.results) {
    if (reads_part_forward(result)) continue;
    channels -= 2 * result.channels;
    --launches;
  }
  return channels * pixels * item_size(siblings.input.dtype) + launches * kLaunchBytes > 0;
}

// By the bytes that move in a step. Each sibling but one is spared reading the image for its result
// and for its weights' gradient, writing its part of the image's gradient and adding that up (two
// reads, one write). In return the weights are copied together, and the results out of the merged
// ones and their gradients into theirs (a read and a write of both), but not where those who read a
// result take it where it is. Slices begin at whole vectors of 16 bytes.
bool merges_siblings(const Siblings& siblings) noexcept {
  constexpr std::int64_t kSpared = 6, kCopied = 4, kVectorChannels = 8;
  if (siblings.op->stride != Pair{1, 1}) return false;
  std::int64_t results = 0, copied = 0;
  for (const Siblings::Result& result : siblings.results) {
    if (result.channels % kVectorChannels != 0) return false;
    results += result.channels;
    if (!reads_part(result)) copied += result.channels;
  }
  const Shape &image = siblings.input.shape, &window = siblings.weight;
  const std::int64_t pixels = image[0] * image[1] * image[2];
  if (!siblings.training) return merges_forward(siblings, pixels);
  const std::int64_t weights = results * window[1] * window[2] * window[3];
  const auto others = static_cast<std::int64_t>(siblings.results.size()) - 1;
  return (kSpared * others * image[3] - kCopied * copied) * pixels *
             item_size(siblings.input.dtype) >
         2 * weights * item_size(DType::kFloat32);
}

// Always: a library's kernel is followed by one pass over its result, as a batch norm of its own
// would make it or shorter, ours measures what it has in its registers, and the faster is taken.
bool measures_outputs(const Op& op, Specs, Specs outputs) noexcept {
  return (std::holds_alternative<ops::Conv2d>(op) ||
          std::holds_alternative<ops::Conv2dGradInput>(op)) &&
         is_image_type(outputs[0].dtype);
}

Choice select(const ops::Conv2d& op, const Problem& problem) {
  if (const char* const reason = unfit_conv(op, problem, problem.inputs[1])) return refuse(reason);
  if (const char* const reason = unfit_epilogue(op.epilogue)) return refuse(reason);
  return choose(op, problem);
}

Choice select(const ops::Conv2dGradInput& op, const Problem& problem) {
  if (const char* const reason = unfit_conv(op, problem, problem.inputs[1])) return refuse(reason);
  if (!has_curve(op.sums.activation)) return refuse(kNoCurve);
  return choose(op, problem);
}

Choice select(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* const reason = unfit_conv(op, problem, problem.outputs[0])) return refuse(reason);
  return choose(op, problem);
}

Choice select(const ops::Dense& op, const Problem& problem) {
  if (const char* const reason = unfit_dense(problem)) return refuse(reason);
  if (const char* const reason = unfit_epilogue(op.epilogue)) return refuse(reason);
  return choose(op, problem);
}

Choice select(const ops::DenseGradInput& op, const Problem& problem) {
  if (const char* const reason = unfit_dense(problem)) return refuse(reason);
  return choose(op, problem);
}

Choice select(const ops::DenseGradWeight& op, const Problem& problem) {
  if (const char* const reason = unfit_dense(problem)) return refuse(reason);
  return choose(op, problem);
}

}  // namespace pycnn::cuda
