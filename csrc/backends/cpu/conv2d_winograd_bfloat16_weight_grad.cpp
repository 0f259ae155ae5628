#include "backends/cpu/conv2d_winograd_bfloat16_weight_grad.h"

#include <algorithm>

#include "backends/cpu/conv2d_winograd_steps.h"
#include "backends/cpu/conv2d_winograd_weight_grad.h"
#include "backends/cpu/winograd_pairs.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

struct PairTileGradKernels {
  const PairTileUnit* unit;
  const PairUnit* pairs;
  const WinogradSet* transforms;  // of the sums, in float32
  Index block_width;              // channels of theirs
};

// Points are kept as [point][16 channels][pair of tiles][channel][2], sums as [point][block of
// output channels][block of read channels][32][32].
struct PairTileGradPlan {
  WinogradTiles tiles;
  Index bias = 0;
  Index in_blocks = 0, out_blocks = 0;
  Index step_tiles = 0, steps = 0;  // tiles that are summed in one go, whole steps of pairs
  Index item_tiles = 0, items = 0;  // tiles of a step that are transformed in one go
  Index splits = 1;                 // of the output channels' blocks
  Index group_pitch = 0;            // elements of 16 channels of a point

  Index in_plane() const { return in_blocks * 2 * group_pitch + kPairBlock; }
  Index grad_plane() const { return out_blocks * 2 * group_pitch + kPairBlock; }
  Index row_sums() const { return in_blocks * kPairBlock * kPairBlock; }
  Index sum_plane() const { return out_blocks * row_sums() + kWinogradLine; }
  Index bias_sums() const { return bias ? items * out_blocks * kPairBlock : 0; }
  Index split_begin(Index split) const { return out_blocks * split / splits; }
};

static_assert(std::has_unique_object_representations_v<PairTileGradPlan>);

constexpr Index kLeastGradChannels = 32;  // fewer do not repay the transforms
constexpr Index kLeastItemTiles = 2 * kMostTilePairs, kMostItems = 64;

struct PairTileGradOperands : TileGradOperands<BFloat16> {
  float* bias_sums;
};

// A few pairs of tiles, of the input and of the gradient.
void transform_pairs(const PairTileGradPlan& plan, const PairTileUnit& unit,
                     const PairTileGradOperands& operands, const TileStep& step, Index first,
                     Index pairs, float* bias_sums) {
  const WinogradTiles& tiles = plan.tiles;
  PairTilePlace inputs[2 * kMostTilePairs], grads[2 * kMostTilePairs];
  for (Index t = 0; t < 2 * pairs && first + t < step.tiles; ++t) {
    const WinogradPlace place = place_of(tiles, step.first + first + t);
    inputs[t].image =
        operands.input + place.image * tiles.in_rows * tiles.in_columns * operands.input_pixel;
    inputs[t].row = place.row + tiles.first_row;
    inputs[t].column = place.column + tiles.first_column;
    grads[t].image = operands.grad_output +
                     place.image * tiles.out_rows * tiles.out_columns * operands.grad_pixel;
    grads[t].row = place.row, grads[t].column = place.column;
  }
  TilePairs job;
  job.pairs = pairs, job.group_pitch = plan.group_pitch;
  job.tiles = inputs;
  job.rows = tiles.in_rows, job.columns = tiles.in_columns, job.channels = tiles.in_channels;
  job.pixel_pitch = operands.input_pixel;
  job.points = operands.in_points + first / 2 * kPairBlock, job.plane = plan.in_plane();
  unit.input_pairs(job);
  job.tiles = grads;
  job.rows = tiles.out_rows, job.columns = tiles.out_columns, job.channels = tiles.out_channels;
  job.pixel_pitch = operands.grad_pixel;
  job.points = operands.grad_points + first / 2 * kPairBlock, job.plane = plan.grad_plane();
  job.sums = bias_sums;
  unit.gradient_pairs(job);
}

void transform_item(const PairTileGradPlan& plan, const PairTileUnit& unit,
                    const PairTileGradOperands& operands, const TileStep& step, Index item) {
  float* const bias_sums =
      plan.bias ? operands.bias_sums + item * plan.out_blocks * kPairBlock : nullptr;
  if (bias_sums && !step.accumulate) std::fill_n(bias_sums, plan.out_blocks * kPairBlock, 0.0f);
  // Up to whole steps of pairs: those beyond the last tile are zeros.
  const Index end =
      std::min((item + 1) * plan.item_tiles, ceil_div(step.tiles, kPairStep) * kPairStep);
  for (Index first = item * plan.item_tiles; first < end; first += 2 * kMostTilePairs)
    transform_pairs(plan, unit, operands, step, first, std::min(kMostTilePairs, (end - first) / 2),
                    bias_sums);
}

// The products of one point for a split of the output channels.
void add_products(const PairTileGradPlan& plan, const PairUnit& pairs,
                  const PairTileGradOperands& operands, const TileStep& step, Index point,
                  Index split) {
  constexpr Index kNoShift = 0;
  const Index first = plan.split_begin(split);
  PairSums job;
  job.a = operands.grad_points + point * plan.grad_plane() + first * 2 * plan.group_pitch;
  job.b = operands.in_points + point * plan.in_plane();
  job.a_half = job.b_half = plan.group_pitch;
  job.row_blocks = plan.split_begin(split + 1) - first, job.column_blocks = plan.in_blocks;
  job.taps = &kNoShift, job.tap_count = 1;
  job.steps = ceil_div(step.tiles, kPairStep);
  job.sums = operands.sums + point * plan.sum_plane() + first * plan.row_sums();
  job.sums_row = plan.row_sums();
  job.accumulate = step.accumulate;
  pairs.sums(job);
}

// A block of output channels.
void finish(const PairTileGradPlan& plan, const PairTileGradKernels& kernels,
            const PairTileGradOperands& operands, Index block) {
  const WinogradTiles& tiles = plan.tiles;
  const Index channels = std::min(kPairBlock, tiles.out_channels - block * kPairBlock);
  WinogradSums job;
  job.plane = plan.sum_plane(), job.block_pitch = kernels.block_width;
  job.tap_pitch = tiles.in_channels;
  for (Index in = 0; in < plan.in_blocks; ++in) {
    job.read_channels = std::min(kPairBlock, tiles.in_channels - in * kPairBlock);
    const float* sums = operands.sums + block * plan.row_sums() + in * kPairBlock * kPairBlock;
    for (Index channel = 0; channel < channels; ++channel) {
      job.points = sums + channel * kPairBlock;
      job.weight = operands.grad_weight + in * kPairBlock +
                   (block * kPairBlock + channel) * tiles.taps() * tiles.in_channels;
      kernels.transforms->two_by_three->sums(job);
    }
  }
  if (!plan.bias) return;
  for (Index channel = 0; channel < channels; ++channel) {
    const float* sums = operands.bias_sums + block * kPairBlock + place_in_step(channel);
    float sum = 0;
    for (Index item = 0; item < plan.items; ++item)
      sum += sums[item * plan.out_blocks * kPairBlock];
    operands.grad_bias[block * kPairBlock + channel] = sum;
  }
}

void run_tile_grad(const KernelArgs& args, const PairTileGradKernels& kernels) {
  const PairTileGradPlan& plan = *reinterpret_cast<const PairTileGradPlan*>(args.plan);
  PairTileGradOperands operands{operands_of<BFloat16>(args, plan.bias != 0), nullptr};
  operands.sums = reinterpret_cast<float*>(args.scratch);
  operands.bias_sums = operands.sums + kPairPoints * plan.sum_plane();
  operands.in_points = reinterpret_cast<BFloat16*>(operands.bias_sums + plan.bias_sums());
  operands.grad_points = operands.in_points + kPairPoints * plan.in_plane();
  for (Index s = 0; s < plan.steps; ++s) {
    const TileStep step = step_at(plan.tiles, plan.step_tiles, s);
    auto transform = [&](std::int64_t item, int) {
      transform_item(plan, *kernels.unit, operands, step, item);
    };
    // The last step may have fewer items than the others; whoever has none adds nothing.
    parallel_for(args.threads, plan.items, transform);
    auto add = [&](std::int64_t item, int) {
      add_products(plan, *kernels.pairs, operands, step, item / plan.splits, item % plan.splits);
    };
    parallel_for(args.threads, kPairPoints * plan.splits, add);
  }
  auto finish_block = [&](std::int64_t block, int) { finish(plan, kernels, operands, block); };
  parallel_for(args.threads, plan.out_blocks, finish_block);
}

template <const PairTileGradKernels& kKernels>
void run_pair_tile_grad(const KernelArgs& args) noexcept {
  run_tile_grad(args, kKernels);
}

constexpr PairTileGradKernels kPortableGrad = {&portable::kPairTiles, &portable::kPairUnit,
                                               &baseline::kWinograd, 2 * baseline::kGemmLanes};
#if PYCNN_HAVE_AVX512
constexpr PairTileGradKernels kAvx512Grad = {&avx512_bf16::kPairTiles, &avx512_bf16::kPairUnit,
                                             &avx512::kWinograd, 2 * avx512::kGemmLanes};
#endif

}  // namespace

const KernelFunction kPairTileGradPortable = run_pair_tile_grad<kPortableGrad>;
#if PYCNN_HAVE_AVX512
const KernelFunction kPairTileGradAvx512 = run_pair_tile_grad<kAvx512Grad>;
#endif

const char* refuse_pair_tiles(const WeightGradProblem& p) {
  if (p.kernel_size != Pair{3, 3}) return "the window is not 3x3";
  if (const char* refused = refuse_winograd(p)) return refused;
  if (std::min(p.input[3], p.grad_output[3]) < kLeastGradChannels) return "fewer than 32 channels";
  return nullptr;
}

Kernel make_pair_tile_weight_grad_kernel(const WeightGradProblem& p, KernelFunction run) {
  PairTileGradPlan plan;
  plan.tiles = make_winograd_tiles(p.input, p.grad_output, 3, {-p.padding[0], -p.padding[1]}, 2);
  plan.bias = p.bias;
  plan.in_blocks = ceil_div(p.input[3], kPairBlock);
  plan.out_blocks = ceil_div(p.grad_output[3], kPairBlock);
  const Index tile_bytes =
      kPairPoints * (plan.in_blocks + plan.out_blocks) * kPairBlock * Index{sizeof(BFloat16)};
  const Index count = plan.tiles.count();
  plan.steps = ceil_div(count, std::max(kTileStepBytes / tile_bytes, kLeastStepTiles));
  plan.step_tiles = ceil_div(ceil_div(count, plan.steps), kPairStep) * kPairStep;
  plan.steps = ceil_div(count, plan.step_tiles);
  plan.item_tiles =
      ceil_div(ceil_div(plan.step_tiles, kMostItems), kLeastItemTiles) * kLeastItemTiles;
  plan.items = ceil_div(plan.step_tiles, plan.item_tiles);
  plan.splits = ceil_div(plan.out_blocks, kBlocksOfSplit);
  // Odd numbers of cache lines, so that the channels do not all fall into the same sets.
  plan.group_pitch = (plan.step_tiles / 2 | 1) * kPairBlock;

  Kernel kernel;
  kernel.run = run;
  kernel.scratch_bytes =
      static_cast<std::size_t>(kPairPoints * plan.sum_plane() + plan.bias_sums()) * sizeof(float) +
      static_cast<std::size_t>(kPairPoints * (plan.in_plane() + plan.grad_plane())) *
          sizeof(BFloat16);
  kernel.strided_inputs = 0b11;
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
