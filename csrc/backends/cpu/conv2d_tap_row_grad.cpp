#include "backends/cpu/conv2d_tap_row_grad.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/conv2d_row_pairs.h"
#include "backends/cpu/conv2d_tap_rows.h"
#include "backends/cpu/pair_products.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// Followed in the plan's bytes by the places of the taps of a row.
struct TapRowGradPlan {
  Index images = 0, height = 0, width = 0, channels = 0;
  Index rows = 0, columns = 0, out_channels = 0;  // of the gradient
  Index kernel_rows = 0;
  Pair stride = {1, 1}, padding = {0, 0};
  Index taps = 0;              // elements of a row of taps
  Index steps = 0, pairs = 0;  // of a row of pixels
  Index plane = 0;             // pixels of one position modulo the stride that the taps reach
  Index row_block = 1, row_blocks = 0, units = 0;
  Index near_rows = 1;  // gradient rows that all taps visit in turn
  Index parts = 1;
  Index bias = 0;

  const Index* places() const { return reinterpret_cast<const Index*>(this + 1); }
  Index blocks() const { return ceil_div(out_channels, kPairBlock); }
  Index pitch() const { return steps * kTapStep; }
  Index pixel_step() const { return stride[1] * channels; }
  Index plane_pitch() const { return ceil_div(plane, Index{32}) * 32; }
  Index input_rows(Index output_rows) const { return (output_rows - 1) * stride[0] + kernel_rows; }
  Index grad_row() const { return steps * pairs * 2 * kPairBlock; }
  Index row_taps() const { return taps * pitch(); }  // of one row of the input
  Index all_taps() const { return ceil_div(kernel_rows * taps, kPairRows) * kPairRows; }
  // Of a worker's copies: sorted rows, rows of taps with a tile behind them, rows of the gradient.
  Index sorted_elements() const { return input_rows(row_block) * pixel_step() * plane_pitch(); }
  Index tap_elements() const {
    return ceil_div(input_rows(row_block) * row_taps() + kPairRows * pitch(), kPairBlock) *
           kPairBlock;
  }
  Index grad_elements() const { return blocks() * row_block * grad_row(); }
  Index worker_elements() const { return sorted_elements() + tap_elements() + grad_elements(); }
  Index block_sums() const { return all_taps() * kPairBlock; }
  Index part_floats() const { return blocks() * block_sums(); }
};

static_assert(std::has_unique_object_representations_v<TapRowGradPlan>);

constexpr Index kNearTapGrads =
    16 * 1024;  // elements of a block's gradient: stay in the first cache
constexpr Index kCopiedTapRows = 192 * 1024;  // elements of both copies: stay in the second
constexpr Index kMostTapRowParts = 32;
constexpr Index kTapRowFloats = 2 * 1024 * 1024;  // of all parts
constexpr Index kMostTapRowChannels = 8;
constexpr Index kMostPixelStep = 32;  // elements

struct TapRowTensors {
  const BFloat16* input;
  const BFloat16* grad;
  float* grad_weight;
  float* grad_bias;
  float* sums;        // [part][block][tap][32]
  float* bias_parts;  // [part][block][32]
};

struct TapRowUnit {
  const TapRowLoops* taps;
  const RowPairLoops* pairs;
};

void clear_elements(BFloat16* to, Index count) {
  std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(count) * sizeof(BFloat16));
}

// Some rows of an image, those in padding among them.
void copy_tap_rows(const TapRowGradPlan& plan, const TapRowLoops& loops, const BFloat16* image,
                   Index first, Index rows, BFloat16* sorted, BFloat16* to) {
  const Index begin = std::clamp<Index>(-first, 0, rows);
  const Index end = std::clamp<Index>(plan.height - first, begin, rows);
  clear_elements(to, begin * plan.row_taps());
  clear_elements(to + end * plan.row_taps(), (rows - end) * plan.row_taps());
  TapRows job;
  job.begin = plan.padding[1] * plan.channels, job.end = job.begin + plan.width * plan.channels;
  job.from_row = plan.width * plan.channels;
  job.from = image + (first + begin) * job.from_row - job.begin;
  job.rows = end - begin;
  job.step = plan.pixel_step();
  job.sorted = sorted, job.plane = plan.plane, job.plane_pitch = plan.plane_pitch();
  job.places = plan.places(), job.taps = plan.taps, job.columns = plan.columns;
  job.steps = plan.steps, job.pairs = plan.pairs;
  job.to = to + begin * plan.row_taps();
  loops.rows(job);
}

// Some rows of one image.
void add_tap_rows(const TapRowGradPlan& plan, const TapRowUnit& loops, const TapRowTensors& tensors,
                  Index unit, Index part, bool accumulate, BFloat16* buffer) {
  const Index image = unit / plan.row_blocks, first = unit % plan.row_blocks * plan.row_block;
  const Index rows = std::min(plan.row_block, plan.rows - first);
  BFloat16* const taps = buffer + plan.sorted_elements();
  BFloat16* const grads = taps + plan.tap_elements();
  copy_tap_rows(plan, *loops.taps, tensors.input + image * plan.height * plan.width * plan.channels,
                first * plan.stride[0] - plan.padding[0], plan.input_rows(rows), buffer, taps);
  GradRowPairs row;
  row.columns = plan.columns, row.channels = plan.out_channels;
  row.from = tensors.grad + (image * plan.rows + first) * plan.columns * plan.out_channels;
  row.to = grads, row.block_pitch = plan.row_block * plan.grad_row();
  if (plan.bias) row.bias = tensors.bias_parts + part * plan.blocks() * kPairBlock;
  for (Index r = 0; r < rows; ++r, row.to += plan.grad_row()) {
    loops.pairs->grad_row(row);
    row.from += plan.columns * plan.out_channels;
  }
  TapRowSums job;
  job.input_row = plan.stride[0] * plan.row_taps(), job.input_tap = plan.pitch();
  job.grad_row = plan.grad_row(), job.steps = plan.steps, job.pairs = plan.pairs;
  job.taps = plan.kernel_rows * plan.taps;
  for (Index block = 0; block < plan.blocks(); ++block) {
    job.channels = std::min(kPairBlock, plan.out_channels - block * kPairBlock);
    job.sums = tensors.sums + part * plan.part_floats() + block * plan.block_sums();
    for (Index r = 0; r < rows; r += plan.near_rows) {
      job.rows = std::min(plan.near_rows, rows - r);
      job.input = taps + r * job.input_row;
      job.grad = grads + block * row.block_pitch + r * plan.grad_row();
      job.accumulate = accumulate || r > 0;
      loops.taps->sums(job);
    }
  }
}

// Adds the parts in their order; from [tap][channel] to [channel][tap].
void combine_tap_rows(const TapRowGradPlan& plan, const TapRowTensors& tensors, Index block) {
  const Index filter = plan.kernel_rows * plan.taps, channel = block * kPairBlock;
  float* from = tensors.sums + block * plan.block_sums();
  for (Index part = 1; part < plan.parts; ++part) {
    const float* other = from + part * plan.part_floats();
    for (Index i = 0; i < filter * kPairBlock; ++i) from[i] += other[i];
  }
  const Index channels = std::min(kPairBlock, plan.out_channels - channel);
  for (Index c = 0; c < channels; ++c)
    for (Index t = 0; t < filter; ++t)
      tensors.grad_weight[(channel + c) * filter + t] = from[t * kPairBlock + c];
}

void run_tap_row_grad(const KernelArgs& args, const TapRowUnit& loops) {
  const TapRowGradPlan& plan = *reinterpret_cast<const TapRowGradPlan*>(args.plan);
  TapRowTensors tensors;
  tensors.input = args.inputs[0].as<const BFloat16>();
  tensors.grad = args.inputs[1].as<const BFloat16>();
  tensors.grad_weight = args.outputs[0].as<float>();
  tensors.grad_bias = plan.bias ? args.outputs[1].as<float>() : nullptr;
  if (plan.units == 0) {
    std::fill_n(tensors.grad_weight, plan.out_channels * plan.kernel_rows * plan.taps, 0.0f);
    if (plan.bias) std::fill_n(tensors.grad_bias, plan.out_channels, 0.0f);
    return;
  }
  const Index bias_floats = plan.blocks() * kPairBlock;
  tensors.sums = reinterpret_cast<float*>(args.scratch);
  tensors.bias_parts = tensors.sums + plan.parts * plan.part_floats();
  auto* const buffers = reinterpret_cast<BFloat16*>(tensors.bias_parts + plan.parts * bias_floats);
  auto run_part = [&](std::int64_t part, int worker) {
    BFloat16* const buffer = buffers + worker * plan.worker_elements();
    // Rows of pairs may end before their last step does, and taps before their last tile.
    clear_elements(buffer, plan.worker_elements());
    const Index first = plan.units * part / plan.parts;
    std::fill_n(tensors.bias_parts + part * bias_floats, bias_floats, 0.0f);
    for (Index unit = first; unit < plan.units * (part + 1) / plan.parts; ++unit)
      add_tap_rows(plan, loops, tensors, unit, part, unit != first, buffer);
  };
  parallel_for(args.threads, plan.parts, run_part);
  auto combine = [&](std::int64_t block, int) { combine_tap_rows(plan, tensors, block); };
  parallel_for(args.threads, plan.blocks(), combine);
  if (!plan.bias) return;
  std::copy_n(tensors.bias_parts, plan.out_channels, tensors.grad_bias);
  for (Index part = 1; part < plan.parts; ++part)
    for (Index c = 0; c < plan.out_channels; ++c)
      tensors.grad_bias[c] += tensors.bias_parts[part * bias_floats + c];
}

constexpr TapRowUnit kTapRowPortable = {&portable::kTapRowLoops, &portable::kRowPairLoops};
#if PYCNN_HAVE_AVX512
constexpr TapRowUnit kTapRowAmx = {&amx::kTapRowLoops, &avx512_bf16::kRowPairLoops};
#endif

template <const TapRowUnit& kUnit>
void run_tap_rows(const KernelArgs& args) noexcept {
  run_tap_row_grad(args, kUnit);
}

}  // namespace

const KernelFunction kTapRowGradPortable = run_tap_rows<kTapRowPortable>;
#if PYCNN_HAVE_AVX512
const KernelFunction kTapRowGradAmx = run_tap_rows<kTapRowAmx>;
#endif

const char* refuse_tap_row_grad(const WeightGradProblem& p) {
  if (p.groups > 1) return "there are groups";
  if (p.dilation[0] != 1 && p.kernel_size[0] > 1) return "the rows of taps are dilated";
  if (p.input[3] > kMostTapRowChannels) return "there are more than 8 channels";
  if (p.kernel_size[1] == 1) return "a row has one tap";
  if (p.stride[1] * p.input[3] > kMostPixelStep)
    return "a step of the stride is longer than a vector";
  return nullptr;
}

Kernel make_tap_row_grad_kernel(const WeightGradProblem& p, int threads, KernelFunction run) {
  TapRowGradPlan plan;
  plan.images = p.input[0], plan.height = p.input[1], plan.width = p.input[2];
  plan.channels = p.input[3];
  plan.rows = p.grad_output[1], plan.columns = p.grad_output[2];
  plan.out_channels = p.grad_output[3];
  plan.kernel_rows = p.kernel_size[0];
  plan.taps = p.kernel_size[1] * plan.channels;
  plan.stride = p.stride, plan.padding = p.padding;
  plan.bias = p.bias;
  plan.steps = std::max<Index>(1, ceil_div(plan.columns, kTapStep));
  plan.pairs = std::max<Index>(1, ceil_div(ceil_div(plan.columns, plan.steps), Index{2}));
  const Index reach = (p.kernel_size[1] - 1) * p.dilation[1];
  plan.plane = plan.columns + reach / p.stride[1];
  plan.near_rows = std::max<Index>(1, kNearTapGrads / plan.grad_row());
  auto copied = [&](Index rows) {
    return plan.input_rows(rows) * plan.row_taps() + plan.blocks() * rows * plan.grad_row();
  };
  plan.row_block = std::max<Index>(1, plan.rows);
  for (Index n = 2; plan.row_block > 1 && copied(plan.row_block) > kCopiedTapRows; ++n)
    plan.row_block = ceil_div(plan.rows, n);
  plan.row_blocks = ceil_div(plan.rows, plan.row_block);
  plan.units = plan.columns > 0 ? plan.images * plan.row_blocks : 0;
  plan.parts = std::clamp<Index>(kTapRowFloats / std::max<Index>(1, plan.part_floats()), 1,
                                 std::clamp<Index>(plan.units, 1, kMostTapRowParts));
  std::vector<Index> places;
  for (Index j = 0; j < p.kernel_size[1]; ++j) {
    const Index column = j * p.dilation[1];
    for (Index c = 0; c < plan.channels; ++c)
      places.push_back((column % p.stride[1] * plan.channels + c) * plan.plane_pitch() +
                       column / p.stride[1]);
  }

  Kernel kernel;
  kernel.run = run;
  const Index floats = plan.parts * (plan.part_floats() + plan.blocks() * kPairBlock);
  kernel.scratch_bytes =
      static_cast<std::size_t>(floats) * sizeof(float) +
      static_cast<std::size_t>(std::max(threads, 1) * plan.worker_elements()) * sizeof(BFloat16);
  append_to_plan(kernel.plan, &plan, 1);
  append_to_plan(kernel.plan, places.data(), places.size());
  return kernel;
}

}  // namespace pycnn::cpu
