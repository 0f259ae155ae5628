#include "backends/cpu/dense_update_bfloat16.h"

#include <algorithm>

#include "backends/cpu/conv2d_input.h"
#include "core/half.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

struct PairUpdatePlan {
  Index images = 0, inputs = 0, outputs = 0;
  Index steps = 0, pairs = 0;  // of the sum over images; pairs are those of a step
  Index columns = 0;           // of a tile: whole blocks of inputs

  Index row_blocks() const { return ceil_div(outputs, kPairBlock); }
  Index tiles_across() const { return ceil_div(inputs, columns); }
  Index half_pitch() const { return steps * kPairHalf; }
  Index table_entries() const { return steps * kPairStep; }
  Index grad_elements() const { return row_blocks() * 2 * half_pitch(); }
  Index input_elements() const { return ceil_div(inputs, kPairBlock) * 2 * half_pitch(); }
  // Some floats more, lest the lines of a column share few sets of the first-level cache.
  Index tile_pitch() const { return columns + 16; }
  Index tile_floats() const { return kPairBlock * tile_pitch(); }
};
static_assert(std::has_unique_object_representations_v<PairUpdatePlan>);

constexpr Index kTileColumns = 2048;
constexpr Index kTileElements = 128 * 1024;  // of the images of a tile: they stay in L2
constexpr Index kPreparedChannels = 512;     // at a time

using ImagePointer = const BFloat16*;

struct UpdateOperands {
  BFloat16* grads;
  BFloat16* inputs;
  float* tiles;  // of all workers
  ImagePointer* grad_images;
  ImagePointer* input_images;
};

UpdateOperands operands_of(const KernelArgs& args, const PairUpdatePlan& plan) {
  UpdateOperands operands;
  operands.grads = reinterpret_cast<BFloat16*>(args.scratch);
  operands.inputs = operands.grads + plan.grad_elements();
  operands.tiles = reinterpret_cast<float*>(operands.inputs + plan.input_elements());
  operands.grad_images =
      reinterpret_cast<ImagePointer*>(operands.tiles + args.threads * plan.tile_floats());
  operands.input_images = operands.grad_images + plan.table_entries();
  return operands;
}

void find_images(const PairUpdatePlan& plan, const BFloat16* images, Index channels,
                 ImagePointer* to) {
  for (Index n = 0; n < plan.table_entries(); ++n)
    to[n] = n < plan.images ? images + n * channels : nullptr;
}

void sum_bias(const PairUpdatePlan& plan, const BFloat16* grad, Index begin, Index end,
              float* bias) {
  std::fill(bias + begin, bias + end, 0.0f);
  for (Index n = 0; n < plan.images; ++n, grad += plan.outputs)
    for (Index c = begin; c < end; ++c) bias[c] += float_from_bfloat16(grad[c].bits);
}

void prepare_operands(const KernelArgs& args, const PairUpdatePlan& plan, const PairUnit& unit,
                      const UpdateOperands& operands, float* grad_bias) noexcept {
  const BFloat16* const grad = args.inputs[2].as<const BFloat16>();
  find_images(plan, args.inputs[1].as<const BFloat16>(), plan.inputs, operands.input_images);
  find_images(plan, grad, plan.outputs, operands.grad_images);
  const Index grad_parts = ceil_div(plan.outputs, kPreparedChannels);
  const Index input_parts = ceil_div(plan.inputs, kPreparedChannels);
  parallel_for(args.threads, grad_parts + input_parts, [&](std::int64_t part, int) {
    const bool is_grad = part < grad_parts;
    PixelPairs job;
    job.pixels = is_grad ? operands.grad_images : operands.input_images;
    job.pairs = plan.steps * plan.pairs;
    job.first_channel = (is_grad ? part : part - grad_parts) * kPreparedChannels;
    job.channels =
        std::min(kPreparedChannels, (is_grad ? plan.outputs : plan.inputs) - job.first_channel);
    job.group_pitch = plan.half_pitch();
    job.to =
        (is_grad ? operands.grads : operands.inputs) + job.first_channel / 16 * job.group_pitch;
    if (!is_grad) return unit.columns(job);
    unit.rows(job);
    if (grad_bias != nullptr)
      sum_bias(plan, grad, job.first_channel, job.first_channel + job.channels, grad_bias);
  });
}

// Calls a block of what the update will read beside the gradients to the second-level cache: the
// rows of a tile are too short for the hardware to see them coming.
void fetch_block(const KernelArgs& args, const PairUpdatePlan& plan, Index row, Index column) {
  const Index rows = std::min(kPairBlock, plan.outputs - row);
  for (std::size_t i = 0; i < args.inputs.size(); ++i) {
    if (*args.inputs[i].spec != *args.inputs[0].spec) continue;
    const float* from = args.inputs[i].as<const float>() + row * plan.inputs + column;
    for (Index r = 0; r < rows; ++r, from += plan.inputs) {
      __builtin_prefetch(from, 0, 2);
      __builtin_prefetch(from + 16, 0, 2);
    }
  }
}

}  // namespace

void each_pair_tile(const KernelArgs& args, const PairUnit& unit, float* grad_bias,
                    TakeGradients take) noexcept {
  const auto& plan = *reinterpret_cast<const PairUpdatePlan*>(args.plan);
  const UpdateOperands operands = operands_of(args, plan);
  prepare_operands(args, plan, unit, operands, grad_bias);
  constexpr Index kNoTap = 0;
  const Index across = plan.tiles_across();
  parallel_for(args.threads, plan.row_blocks() * across, [&](std::int64_t tile, int worker) {
    const Index row = tile / across * kPairBlock, column = tile % across * plan.columns;
    const Index rows = std::min(kPairBlock, plan.outputs - row);
    const Index columns = std::min(plan.columns, plan.inputs - column);
    float* const gradients = operands.tiles + worker * plan.tile_floats();
    PairSums job;
    job.a_half = job.b_half = plan.half_pitch();
    job.a = operands.grads + row / 16 * job.a_half;
    job.b = operands.inputs + column / 16 * job.b_half;
    job.row_blocks = job.column_blocks = 1;
    job.taps = &kNoTap, job.tap_count = 1;
    job.steps = plan.steps, job.pairs = plan.pairs;
    job.sums = gradients;
    job.sums_block = kPairBlock, job.sums_pitch = plan.tile_pitch();
    for (Index c = 0; c < columns; c += kPairBlock) {
      fetch_block(args, plan, row, column + c);
      unit.sums(job);
      job.b += 2 * job.b_half, job.sums += kPairBlock;
    }
    for (Index r = 0; r < rows; ++r)
      take((row + r) * plan.inputs + column, columns, gradients + r * plan.tile_pitch());
  });
}

Kernel make_pair_update_kernel(const Problem& problem) {
  PairUpdatePlan plan;
  plan.outputs = problem.inputs[0].shape[0];
  plan.inputs = problem.inputs[0].shape[1];
  plan.images = element_count(problem.inputs[1].shape) / std::max<Index>(plan.inputs, 1);
  plan.steps = std::max<Index>(1, ceil_div(plan.images, kPairStep));
  plan.pairs = plan.steps > 1 ? kPairStep / 2 : std::max<Index>(1, ceil_div(plan.images, 2));
  const Index most = std::clamp(kTileElements / plan.table_entries(), kPairBlock, kTileColumns);
  plan.columns =
      std::min(most / kPairBlock * kPairBlock, ceil_div(plan.inputs, kPairBlock) * kPairBlock);
  Kernel kernel;
  const auto floats = std::max(problem.threads, 1) * plan.tile_floats();
  kernel.scratch_bytes =
      static_cast<std::size_t>(plan.grad_elements() + plan.input_elements()) * sizeof(BFloat16) +
      static_cast<std::size_t>(floats) * sizeof(float) +
      static_cast<std::size_t>(2 * plan.table_entries()) * sizeof(ImagePointer);
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
