#include "backends/cuda/conv2d_rewrite.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

// Fewer are "few": blocks are tried.
constexpr int kBlockedChannels = 8;
// Multiply-adds with blocks are at most that many times those without.
constexpr std::int64_t kMostWaste = 4;
// Channels that joined groups shall have, in vectors of 16 bytes.
constexpr int kJoinedVectors[] = {1, 2, 4};
// Moved images take at most that, or what the step's own tensors take.
constexpr std::int64_t kMostMoved = std::int64_t{256} << 20;

int item_bytes(Image image) { return is_narrow(image) ? 2 : 4; }
int vector_items(Image image) { return kVectorBytes / item_bytes(image); }
int round_up(int number, int step) { return (number + step - 1) / step * step; }

std::int64_t align(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

// One axis with blocks of its stride: the border becomes part of the image.
struct BlockedAxis {
  int block = 1, before = 0, size = 0, taps = 0, padding = 0, dilation = 1, filter_dilation = 1;
};
BlockedAxis blocked(int stride, int kernel, int dilation, int padding, int size, int out_size) {
  BlockedAxis axis;
  if (stride == 1) {
    axis.size = size;
    axis.taps = kernel;
    axis.padding = padding;
    axis.dilation = dilation;
    return axis;
  }
  axis.block = stride;
  axis.before = padding;
  const std::int64_t reach = std::int64_t{kernel - 1} * dilation + 1;
  axis.taps = static_cast<int>((reach + stride - 1) / stride);
  axis.size = out_size + axis.taps - 1;
  axis.filter_dilation = dilation;
  return axis;
}

ConvRewrite plain_rewrite(const ConvTask& task) {
  const ConvShape& s = task.shape;
  ConvRewrite r;
  r.task = r.original = task;
  r.task.measure = MeasureKind::kNothing;  // of the result where it belongs: finish_behind
  r.input = {s.images, s.height, s.width, s.in_channels, 1, 1, 0,
             0,        s.height, s.width, s.in_channels};
  r.output = {s.images, s.out_height, s.out_width, s.out_channels, 1, 1, 0,
              0,        s.out_height, s.out_width, s.out_channels};
  r.weight = {
      s.out_channels, s.kernel_height, s.kernel_width, s.in_group(), s.out_group(), 1, 1, 1, 1, 1,
      s.out_channels, s.kernel_height, s.kernel_width, s.in_group()};
  return r;
}

// Of a convolution without groups, which may have been joined to that.
void pad_channels(ConvRewrite& r, int in, int out) {
  ConvShape& s = r.task.shape;
  s.in_channels = r.input.to_channels = r.weight.to_in_group = in;
  s.out_channels = r.output.to_channels = r.weight.to_out_channels = out;
}

// Gives the rewrite its name and what it has to move; whether it can be had.
bool finish(ConvRewrite& r, const std::string& kind) {
  const ConvShape& s = r.task.shape;
  const ConvShape& from = r.original.shape;
  r.name = kind + "c" + std::to_string(s.in_group()) + "k" + std::to_string(s.out_group());
  r.moves_input = s.in_channels != from.in_channels || s.height != from.height ||
                  s.width != from.width || r.input.block_y != 1 || r.input.block_x != 1;
  r.moves_output = s.out_channels != from.out_channels;
  if (r.moves_output) r.task.bias = r.task.residual = false, r.task.curve = {};
  const int bytes = item_bytes(r.task.image);
  constexpr std::int64_t kMostWeights = std::int64_t{1} << 31;
  if (r.weight.to_count() >= kMostWeights || r.weight.from_count() >= kMostWeights) return false;
  std::int64_t moved = 0;
  if (r.moves_input) moved += r.input.to_count() * bytes;
  if (r.moves_output) moved += r.output.to_count() * bytes;
  const std::int64_t own = (r.input.from_count() + r.output.from_count()) * bytes;
  return moved <= std::max(kMostMoved, own) && fits(r.input, bytes) && fits(r.output, bytes);
}

std::int64_t window_products(const ConvShape& s) {
  return std::int64_t{s.kernel_height} * s.kernel_width * s.in_group();
}

void add_blocks(const ConvTask& task, std::vector<ConvRewrite>& rewrites) {
  const ConvShape& s = task.shape;
  if (s.groups != 1 || s.in_channels >= kBlockedChannels || (s.stride_y == 1 && s.stride_x == 1))
    return;
  const int vector = vector_items(task.image);
  const std::int64_t block_channels = std::int64_t{s.stride_y} * s.stride_x * s.in_channels;
  if (block_channels > kMostWaste * window_products(s)) return;
  const BlockedAxis y =
      blocked(s.stride_y, s.kernel_height, s.dilation_y, s.top, s.height, s.out_height);
  const BlockedAxis x =
      blocked(s.stride_x, s.kernel_width, s.dilation_x, s.left, s.width, s.out_width);
  const int channels = static_cast<int>(block_channels);
  for (const int in : {round_up(channels, vector), round_up(channels, 2 * vector)}) {
    if (!rewrites.empty() && rewrites.back().task.shape.in_channels == in) continue;
    ConvRewrite r = plain_rewrite(task);
    ConvShape& to = r.task.shape;
    to.stride_y = to.stride_x = 1;
    to.height = r.input.to_height = y.size;
    to.width = r.input.to_width = x.size;
    to.kernel_height = r.weight.to_height = y.taps;
    to.kernel_width = r.weight.to_width = x.taps;
    to.top = y.padding;
    to.left = x.padding;
    to.dilation_y = y.dilation;
    to.dilation_x = x.dilation;
    if (y.block != 1) r.task.bottom = 0;
    if (x.block != 1) r.task.right = 0;
    r.input.block_y = r.weight.block_y = y.block;
    r.input.block_x = r.weight.block_x = x.block;
    r.input.top = y.before;
    r.input.left = x.before;
    r.weight.dilation_y = y.filter_dilation;
    r.weight.dilation_x = x.filter_dilation;
    pad_channels(r, in, round_up(s.out_channels, vector));
    if (std::int64_t{y.taps} * x.taps * in > kMostWaste * window_products(s)) continue;
    const std::string kind = "blocks" + std::to_string(y.block) + "x" + std::to_string(x.block);
    if (finish(r, kind)) rewrites.push_back(std::move(r));
  }
}

void add_padded(const ConvTask& task, std::vector<ConvRewrite>& rewrites) {
  const ConvShape& s = task.shape;
  const int vector = vector_items(task.image);
  const int in = round_up(s.in_channels, vector), out = round_up(s.out_channels, vector);
  if (s.groups != 1 || (in == s.in_channels && out == s.out_channels)) return;
  const auto add = [&](int channels) {
    ConvRewrite r = plain_rewrite(task);
    pad_channels(r, channels, out);
    if (finish(r, "padded")) rewrites.push_back(std::move(r));
  };
  add(in);
  // Twice as much where that is little.
  if (s.in_channels < vector) add(2 * vector);
}

void add_joined(const ConvTask& task, std::vector<ConvRewrite>& rewrites) {
  const ConvShape& s = task.shape;
  const int vector = vector_items(task.image), in = s.in_group(), out = s.out_group();
  if (s.groups == 1 || in >= 2 * vector) return;
  int last = 1;
  for (const int vectors : kJoinedVectors) {
    const auto serves = [&](int joined) {
      return s.groups % joined == 0 && joined * in >= vectors * vector &&
             joined * in % vector == 0 && joined * out % vector == 0;
    };
    int joined = last + 1;
    while (joined < s.groups && !serves(joined)) ++joined;
    if (joined > s.groups || joined * in > 8 * vectors * vector) break;
    last = joined;
    ConvRewrite r = plain_rewrite(task);
    r.task.shape.groups = s.groups / joined;
    r.weight.joined = joined;
    r.weight.to_in_group = joined * in;
    if (joined == s.groups)
      pad_channels(r, round_up(s.in_channels, vector), round_up(s.out_channels, vector));
    if (finish(r, "joined" + std::to_string(joined))) rewrites.push_back(std::move(r));
    if (joined == s.groups) break;
  }
}

// Where a step's scratch has what; a gradient of weights is float32.
struct RewriteLayout {
  std::int64_t input = 0, output = 0, weight = 0, bytes = 0;
};
RewriteLayout layout_of(const ConvRewrite& r) {
  const int bytes = item_bytes(r.task.image);
  RewriteLayout layout;
  layout.output = layout.input + (r.moves_input ? align(r.input.to_count() * bytes) : 0);
  layout.weight = layout.output + (r.moves_output ? align(r.output.to_count() * bytes) : 0);
  const bool makes_weight = r.task.direction == Direction::kGradWeight;
  layout.bytes = layout.weight + (makes_weight ? align(r.weight.to_count() * 4) : 0);
  return layout;
}

// Lives in Kernel::state of steps that map weights.
struct FilterTask {
  Image image;
  FilterMap map;
};

FilterMapping mapping_of(const FilterTask& task, const TensorView& weight,
                         const TensorView& packed) {
  return {task.map, weight.as<const float>(), packed.data};
}

void run_map(const KernelArgs& args) noexcept {
  const auto& task =
      *static_cast<const FilterTask*>(static_cast<const DeviceKernelArgs&>(args).state);
  const FilterMapping mapping = mapping_of(task, args.inputs[0], args.outputs[0]);
  map_filters(queue_of(args), task.image, &mapping, 1);
}

void run_maps(const KernelArgs& args) noexcept {
  const auto& tasks = *static_cast<const std::vector<FilterTask>*>(
      static_cast<const DeviceKernelArgs&>(args).state);
  FilterMapping together[kMostFilters];
  int count = 0;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    together[count++] = mapping_of(tasks[i], args.inputs[i], args.outputs[i]);
    const bool is_last = i + 1 == tasks.size() || tasks[i + 1].image != tasks[i].image;
    if (!is_last && count < kMostFilters) continue;
    map_filters(queue_of(args), tasks[i].image, together, count);
    count = 0;
  }
}

Kernel join_maps(std::span<const Joining> steps) noexcept {
  auto tasks = std::make_shared<std::vector<FilterTask>>();
  for (const Joining& step : steps)
    tasks->push_back(*static_cast<const FilterTask*>(step.kernel->state.get()));
  Kernel kernel;
  kernel.run = run_maps;
  kernel.state = std::move(tasks);
  return kernel;
}

}  // namespace

std::int64_t ConvRewrite::scratch_bytes() const { return layout_of(*this).bytes; }

std::int64_t ConvRewrite::packed_bytes() const {
  return weight.to_count() * item_bytes(task.image);
}

std::vector<ConvRewrite> rewrites_of(const ConvTask& task) {
  std::vector<ConvRewrite> rewrites;
  add_blocks(task, rewrites);
  add_padded(task, rewrites);
  add_joined(task, rewrites);
  return rewrites;
}

bool needs_rewrite(const ConvTask& task, bool tf32) {
  const ConvShape& s = task.shape;
  const int vector = vector_items(task.image);
  if (!is_narrow(task.image) && !tf32) return false;
  // Libraries have kernels of their own for groups of one channel.
  if (s.groups > 1 && s.in_group() == 1) return false;
  return s.in_group() % vector != 0 || s.out_group() % vector != 0;
}

PackedInput rewritten_weight(const ConvRewrite& rewrite, const char* format, bool alone) {
  PackedInput packed;
  packed.input = 1;
  packed.bytes = scratch(rewrite.packed_bytes());
  packed.pack = run_map;
  packed.format = format;
  packed.state = std::make_shared<FilterTask>(FilterTask{rewrite.task.image, rewrite.weight});
  if (!alone && rewrite.weight.to_count() < kManyWeights) packed.join = join_maps;
  return packed;
}

std::int64_t finish_scratch_bytes(const ConvRewrite& r) {
  const bool is_ours = r.moves_output && r.original.direction == Direction::kGradWeight;
  return is_ours && r.original.bias ? conv2d_grad_bias_scratch_bytes(r.original.shape) : 0;
}

void run_rewritten(DeviceQueue& queue, const ConvRewrite& r, const ConvCall& call,
                   std::byte* scratch, bool narrow, const ConvRun& inner) {
  const RewriteLayout layout = layout_of(r);
  const int bytes = item_bytes(r.task.image);
  const Direction direction = r.task.direction;
  std::byte* const input = scratch + layout.input;
  std::byte* const output = scratch + layout.output;
  std::byte* const weight = scratch + layout.weight;
  std::byte* const rest = scratch + layout.bytes;
  ConvCall moved = call;
  moved.measure = {};
  if (direction == Direction::kGradInput) moved.epilogue = {};  // comes behind
  if (r.moves_input) {
    moved.input = input;
    if (direction != Direction::kGradInput) gather_blocks(queue, bytes, r.input, call.input, input);
  }
  if (r.moves_output) {
    moved.output = output;
    moved.epilogue = {};
    moved.grad_bias = nullptr;
    if (direction != Direction::kForward)
      gather_blocks(queue, bytes, r.output, call.output, output);
  }
  if (direction == Direction::kGradWeight) {
    moved.grad_weight = narrow ? nullptr : reinterpret_cast<float*>(weight);
    moved.narrow_grad_weight = narrow ? weight : nullptr;
  }
  inner(moved, rest);
  switch (direction) {
    case Direction::kForward:
      if (r.moves_output)
        finish_padded(queue, r.task.image, r.output, call.epilogue, output,
                      const_cast<void*>(call.output));
      break;
    case Direction::kGradInput:
      if (r.moves_input)
        scatter_blocks(queue, bytes, r.input, input, const_cast<void*>(call.input));
      break;
    case Direction::kGradWeight:
      if (call.narrow_grad_weight != nullptr)
        unmap_filter(queue, r.weight, r.task.image, weight, r.task.image, call.narrow_grad_weight);
      else
        unmap_filter(queue, r.weight, narrow ? r.task.image : Image::kFloat32, weight,
                     Image::kFloat32, call.grad_weight);
      if (r.moves_output && call.grad_bias != nullptr)
        conv2d_grad_bias(queue, r.original.image, r.original.shape, call.output, call.grad_bias,
                         rest);
      break;
  }
}

}  // namespace pycnn::cuda
