#include "backends/cpu/conv2d_row_pair_grad.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/conv2d_row_pairs.h"
#include "backends/cpu/pair_products.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

struct RowPairGradPlan {
  Index images = 0, height = 0, width = 0, channels = 0;
  Index rows = 0, columns = 0, out_channels = 0;  // of the gradient
  Index kernel_rows = 0, row_step = 1;            // rows of the input from tap to tap
  Pair stride = {1, 1}, padding = {0, 0};
  Index elements = 0;  // of a row of taps
  Index row_block = 1, row_blocks = 0, units = 0;
  Index near_rows = 1;  // gradient rows that all taps visit in turn
  Index parts = 1;
  Index bias = 0;

  Index blocks() const { return ceil_div(out_channels, kPairBlock); }
  Index pairs() const { return ceil_div(columns, Index{2}); }
  Index pixel_step() const { return stride[1] * channels; }
  // Elements of a row of the input that the taps of all output pixels meet.
  Index reach() const { return (columns - 1) * pixel_step() + elements; }
  // Those of a row of pairs, whose second ones lie a step further on.
  Index row_pairs() const { return (pairs() - 1) * 2 * pixel_step() + elements; }
  Index row_elements() const { return row_pairs() + pixel_step(); }
  Index input_rows(Index output_rows) const {
    return (output_rows - 1) * stride[0] + (kernel_rows - 1) * row_step + 1;
  }
  Index grad_row() const { return pairs() * 2 * kPairBlock; }
  // Of a worker's copies: a row of the input, rows of pairs, rows of the gradient.
  Index row_buffer() const { return ceil_div(row_elements(), kPairBlock) * kPairBlock; }
  Index input_buffer() const {
    return ceil_div(input_rows(row_block) * 2 * row_pairs(), kPairBlock) * kPairBlock;
  }
  Index grad_buffer() const { return blocks() * row_block * grad_row(); }
  Index worker_elements() const { return row_buffer() + input_buffer() + grad_buffer(); }
  Index tap_sums() const { return elements * kPairBlock; }
  Index block_sums() const { return kernel_rows * tap_sums(); }
  Index part_floats() const { return blocks() * block_sums(); }
};

static_assert(std::has_unique_object_representations_v<RowPairGradPlan>);

constexpr Index kNearGrads = 8 * 1024;      // elements of the gradient: stay in the first cache
constexpr Index kCopiedGrads = 128 * 1024;  // elements of its copy: stay in the second
constexpr Index kMostRowPairParts = 32;
constexpr Index kRowPairFloats = 2 * 1024 * 1024;  // of all parts
constexpr Index kMostRowPairChannels = 8;

struct RowPairTensors {
  const BFloat16* input;
  const BFloat16* grad;
  float* grad_weight;
  float* grad_bias;
  float* sums;        // [part][block][kernel row][element][32]
  float* bias_parts;  // [part][block][32]
};

// Rows of pairs; `row` holds one row at a time, with zeros around what its taps meet of the image.
void pair_input_rows(const RowPairGradPlan& plan, const RowPairLoops& loops, const BFloat16* image,
                     Index first_row, Index rows, BFloat16* row, BFloat16* to) {
  const Index first = -plan.padding[1] * plan.channels;
  const Index begin = std::clamp<Index>(-first, 0, plan.reach());
  const Index end = std::clamp<Index>(plan.width * plan.channels - first, begin, plan.reach());
  auto bytes = [](Index count) { return static_cast<std::size_t>(count) * sizeof(BFloat16); };
  std::memset(static_cast<void*>(row), 0, bytes(plan.row_elements()));
  DistantPairs job;
  job.from = row, job.count = plan.row_pairs(), job.distance = plan.pixel_step();
  for (Index r = first_row; r < first_row + rows; ++r, to += 2 * plan.row_pairs()) {
    if (r < 0 || r >= plan.height) {
      std::memset(static_cast<void*>(to), 0, bytes(2 * plan.row_pairs()));
      continue;
    }
    std::memcpy(row + begin, image + r * plan.width * plan.channels + first + begin,
                bytes(end - begin));
    job.to = to;
    loops.pairs(job);
  }
}

// Some rows of one image.
void add_rows(const RowPairGradPlan& plan, const RowPairLoops& loops, const RowPairTensors& tensors,
              Index unit, Index part, bool accumulate, BFloat16* buffer) {
  const Index image = unit / plan.row_blocks, first = unit % plan.row_blocks * plan.row_block;
  const Index rows = std::min(plan.row_block, plan.rows - first);
  BFloat16* const input = buffer + plan.row_buffer();
  BFloat16* const grads = input + plan.input_buffer();
  pair_input_rows(plan, loops, tensors.input + image * plan.height * plan.width * plan.channels,
                  first * plan.stride[0] - plan.padding[0], plan.input_rows(rows), buffer, input);
  GradRowPairs row;
  row.columns = plan.columns, row.channels = plan.out_channels;
  row.from = tensors.grad + (image * plan.rows + first) * plan.columns * plan.out_channels;
  row.to = grads, row.block_pitch = plan.row_block * plan.grad_row();
  if (plan.bias) row.bias = tensors.bias_parts + part * plan.blocks() * kPairBlock;
  for (Index r = 0; r < rows; ++r, row.to += plan.grad_row()) {
    loops.grad_row(row);
    row.from += plan.columns * plan.out_channels;
  }
  RowPairSums job;
  const Index pair_row = 2 * plan.row_pairs();
  job.input_row = plan.stride[0] * pair_row, job.step = 2 * plan.pixel_step();
  job.grad_row = plan.grad_row();
  job.pairs = plan.pairs(), job.elements = plan.elements;
  for (Index block = 0; block < plan.blocks(); ++block)
    for (Index r = 0; r < rows; r += plan.near_rows) {
      job.rows = std::min(plan.near_rows, rows - r);
      job.grad = grads + block * row.block_pitch + r * plan.grad_row();
      job.accumulate = accumulate || r > 0;
      job.sums = tensors.sums + part * plan.part_floats() + block * plan.block_sums();
      for (Index i = 0; i < plan.kernel_rows; ++i, job.sums += plan.tap_sums()) {
        job.input = input + (r * plan.stride[0] + i * plan.row_step) * pair_row;
        loops.sums(job);
      }
    }
}

// Adds the parts in their order; from [element][channel] to [channel][element].
void combine_row_pairs(const RowPairGradPlan& plan, const RowPairTensors& tensors, Index block) {
  float* from = tensors.sums + block * plan.block_sums();
  for (Index part = 1; part < plan.parts; ++part) {
    const float* other = from + part * plan.part_floats();
    for (Index i = 0; i < plan.block_sums(); ++i) from[i] += other[i];
  }
  const Index filter = plan.kernel_rows * plan.elements, channel = block * kPairBlock;
  const Index channels = std::min(kPairBlock, plan.out_channels - channel);
  for (Index c = 0; c < channels; ++c)
    for (Index e = 0; e < filter; ++e)
      tensors.grad_weight[(channel + c) * filter + e] = from[e * kPairBlock + c];
}

void run_row_pair_grad(const KernelArgs& args, const RowPairLoops& loops) {
  const RowPairGradPlan& plan = *reinterpret_cast<const RowPairGradPlan*>(args.plan);
  RowPairTensors tensors;
  tensors.input = args.inputs[0].as<const BFloat16>();
  tensors.grad = args.inputs[1].as<const BFloat16>();
  tensors.grad_weight = args.outputs[0].as<float>();
  tensors.grad_bias = plan.bias ? args.outputs[1].as<float>() : nullptr;
  if (plan.units == 0) {
    std::fill_n(tensors.grad_weight, plan.out_channels * plan.kernel_rows * plan.elements, 0.0f);
    if (plan.bias) std::fill_n(tensors.grad_bias, plan.out_channels, 0.0f);
    return;
  }
  const Index bias_floats = plan.blocks() * kPairBlock;
  tensors.sums = reinterpret_cast<float*>(args.scratch);
  tensors.bias_parts = tensors.sums + plan.parts * plan.part_floats();
  auto* const buffers = reinterpret_cast<BFloat16*>(tensors.bias_parts + plan.parts * bias_floats);
  auto run_part = [&](std::int64_t part, int worker) {
    const Index first = plan.units * part / plan.parts;
    std::fill_n(tensors.bias_parts + part * bias_floats, bias_floats, 0.0f);
    for (Index unit = first; unit < plan.units * (part + 1) / plan.parts; ++unit)
      add_rows(plan, loops, tensors, unit, part, unit != first,
               buffers + worker * plan.worker_elements());
  };
  parallel_for(args.threads, plan.parts, run_part);
  auto combine = [&](std::int64_t block, int) { combine_row_pairs(plan, tensors, block); };
  parallel_for(args.threads, plan.blocks(), combine);
  if (!plan.bias) return;
  std::copy_n(tensors.bias_parts, plan.out_channels, tensors.grad_bias);
  for (Index part = 1; part < plan.parts; ++part)
    for (Index c = 0; c < plan.out_channels; ++c)
      tensors.grad_bias[c] += tensors.bias_parts[part * bias_floats + c];
}

template <const RowPairLoops& kLoops>
void run_row_pairs(const KernelArgs& args) noexcept {
  run_row_pair_grad(args, kLoops);
}

}  // namespace

const KernelFunction kRowPairGradPortable = run_row_pairs<portable::kRowPairLoops>;
#if PYCNN_HAVE_AVX512
const KernelFunction kRowPairGradAvx512 = run_row_pairs<avx512_bf16::kRowPairLoops>;
#endif

const char* refuse_row_pair_grad(const WeightGradProblem& p) {
  if (p.groups > 1) return "there are groups";
  if (p.dilation[1] != 1) return "the taps of a row are dilated";
  if (p.input[3] > kMostRowPairChannels) return "there are more than 8 channels";
  if (p.kernel_size[1] == 1) return "a row has one tap";
  return nullptr;
}

Kernel make_row_pair_grad_kernel(const WeightGradProblem& p, int threads, KernelFunction run) {
  RowPairGradPlan plan;
  plan.images = p.input[0], plan.height = p.input[1], plan.width = p.input[2];
  plan.channels = p.input[3];
  plan.rows = p.grad_output[1], plan.columns = p.grad_output[2];
  plan.out_channels = p.grad_output[3];
  plan.kernel_rows = p.kernel_size[0], plan.row_step = p.dilation[0];
  plan.elements = p.kernel_size[1] * plan.channels;
  plan.stride = p.stride, plan.padding = p.padding;
  plan.bias = p.bias;
  plan.near_rows = std::max<Index>(1, kNearGrads / std::max<Index>(1, plan.grad_row()));
  auto copied = [&](Index rows) { return plan.blocks() * rows * plan.grad_row(); };
  plan.row_block = std::max<Index>(1, plan.rows);
  for (Index n = 2; plan.row_block > 1 && copied(plan.row_block) > kCopiedGrads; ++n)
    plan.row_block = ceil_div(plan.rows, n);
  plan.row_blocks = ceil_div(plan.rows, plan.row_block);
  plan.units = plan.columns > 0 ? plan.images * plan.row_blocks : 0;
  plan.parts = std::clamp<Index>(kRowPairFloats / std::max<Index>(1, plan.part_floats()), 1,
                                 std::clamp<Index>(plan.units, 1, kMostRowPairParts));

  Kernel kernel;
  kernel.run = run;
  const Index floats = plan.parts * (plan.part_floats() + plan.blocks() * kPairBlock);
  kernel.scratch_bytes =
      static_cast<std::size_t>(floats) * sizeof(float) +
      static_cast<std::size_t>(std::max(threads, 1) * plan.worker_elements()) * sizeof(BFloat16);
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
