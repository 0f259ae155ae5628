#include "backends/cpu/conv2d_winograd_weight_grad.h"

#include <algorithm>

#include "backends/cpu/conv2d_winograd.h"
#include "backends/cpu/conv2d_winograd_steps.h"
#include "core/parallel.h"

namespace pycnn::cpu {

struct WinogradGradKernels {
  Index lanes;
  void (*outer)(const OuterTiles&);
  void (*column_sums)(const ColumnSums&);
  const WinogradSet* transforms;
};

namespace {

// Points are kept as [point][block of channels][tile][lane], sums as [point][block of read
// channels][output channel][lane].
struct WinogradGradPlan {
  WinogradTiles tiles;
  Index bias = 0;
  Index block_width = 0, in_blocks = 0, out_blocks = 0;  // of channels
  Index step_tiles = 0, steps = 0;                       // tiles that are summed in one go
  Index splits = 1;                                      // of the output channels' blocks

  Index block_pitch() const { return step_tiles * block_width; }
  // Planes are odd numbers of cache lines, so that they do not all fall into the same sets.
  static Index plane(Index floats) { return (ceil_div(floats, kWinogradLine) | 1) * kWinogradLine; }
  Index in_plane() const { return plane(in_blocks * block_pitch()); }
  Index grad_plane() const { return plane(out_blocks * block_pitch()); }
  Index sum_block() const { return tiles.out_channels * block_width; }
  Index sum_plane() const { return plane(in_blocks * sum_block()); }
};

static_assert(std::has_unique_object_representations_v<WinogradGradPlan>);

constexpr Index kMaxWeights =
    1024 * 1024;                    // per tap; the sums of all points are up to 4 times the taps
constexpr Index kMinWeights = 512;  // per tap; fewer do not repay the transforms

using Operands = TileGradOperands<float>;

void transform_tile(const WinogradGradPlan& plan, const WinogradTransforms& transforms,
                    const Operands& operands, const TileStep& step, Index tile) {
  const WinogradTiles& tiles = plan.tiles;
  const Index at = (tile - step.first) * plan.block_width;
  auto job = input_of<WinogradInput>(tiles, operands.input, operands.input_pixel, tile);
  job.block_pitch = plan.block_pitch();
  job.points = operands.in_points + at, job.plane = plan.in_plane();
  transforms.input(job);

  const WinogradPlace place = place_of(tiles, tile);
  job.rows = tiles.out_rows, job.columns = tiles.out_columns, job.channels = tiles.out_channels;
  job.pixel_pitch = operands.grad_pixel;
  job.image =
      operands.grad_output + place.image * tiles.out_rows * tiles.out_columns * job.pixel_pitch;
  job.row = place.row, job.column = place.column;
  job.points = operands.grad_points + at, job.plane = plan.grad_plane();
  transforms.gradient(job);
}

// Channels of a block that exist.
Index valid(Index channels, Index block, Index width) {
  return std::min(width, channels - block * width);
}

// The products of one point for a split of the output channels.
void add_products(const WinogradGradPlan& plan, const WinogradGradKernels& kernels,
                  const Operands& operands, const TileStep& step, Index point, Index split) {
  const Index width = plan.block_width;
  const Index first = plan.out_blocks * split / plan.splits;
  const Index end = plan.out_blocks * (split + 1) / plan.splits;
  OuterTiles job;
  job.rows = 1, job.columns = step.tiles;
  job.a_column = width, job.b_column = width, job.c_pitch = width;
  job.accumulate = step.accumulate;
  const float* grads = operands.grad_points + point * plan.grad_plane();
  const float* inputs = operands.in_points + point * plan.in_plane();
  float* sums = operands.sums + point * plan.sum_plane();
  for (Index in = 0; in < plan.in_blocks; ++in) {
    job.b = inputs + in * plan.block_pitch();
    job.n = valid(plan.tiles.in_channels, in, width);
    for (Index out = first; out < end; ++out) {
      job.a = grads + out * plan.block_pitch();
      job.m = valid(plan.tiles.out_channels, out, width);
      job.c = sums + in * plan.sum_block() + out * width * width;
      kernels.outer(job);
    }
  }
  // The point in which a tile's gradients are all added up.
  if (!plan.bias || point != plan.tiles.side() + 1) return;
  for (Index out = first; out < end; ++out) {
    ColumnSums bias;
    bias.b = grads + out * plan.block_pitch();
    bias.rows = 1, bias.columns = step.tiles, bias.b_column = width;
    bias.n = valid(plan.tiles.out_channels, out, width);
    bias.sums = operands.grad_bias + out * width, bias.accumulate = step.accumulate;
    kernels.column_sums(bias);
  }
}

void finish(const WinogradGradPlan& plan, const WinogradTransforms& transforms,
            const Operands& operands, Index channel) {
  WinogradSums job;
  job.points = operands.sums + channel * plan.block_width;
  job.plane = plan.sum_plane(), job.block_pitch = plan.sum_block();
  job.read_channels = job.tap_pitch = plan.tiles.in_channels;
  job.weight = operands.grad_weight + channel * plan.tiles.taps() * plan.tiles.in_channels;
  transforms.sums(job);
}

void run_weight_grad(const KernelArgs& args, const WinogradGradKernels& kernels) {
  const WinogradGradPlan& plan = *reinterpret_cast<const WinogradGradPlan*>(args.plan);
  const WinogradTiles& tiles = plan.tiles;
  const WinogradTransforms& transforms = transforms_of(tiles, *kernels.transforms);
  Operands operands = operands_of<float>(args, plan.bias != 0);
  operands.in_points = reinterpret_cast<float*>(args.scratch);
  operands.grad_points = operands.in_points + tiles.points() * plan.in_plane();
  operands.sums = operands.grad_points + tiles.points() * plan.grad_plane();
  for (Index s = 0; s < plan.steps; ++s) {
    const TileStep step = step_at(tiles, plan.step_tiles, s);
    auto transform = [&](std::int64_t begin, std::int64_t end) {
      for (Index t = begin; t < end; ++t)
        transform_tile(plan, transforms, operands, step, step.first + t);
    };
    parallel_ranges(args.threads, step.tiles, 4, transform);
    auto add = [&](std::int64_t item, int) {
      add_products(plan, kernels, operands, step, item / plan.splits, item % plan.splits);
    };
    parallel_for(args.threads, tiles.points() * plan.splits, add);
  }
  auto finish_range = [&](std::int64_t begin, std::int64_t end) {
    for (Index channel = begin; channel < end; ++channel)
      finish(plan, transforms, operands, channel);
  };
  parallel_ranges(args.threads, tiles.out_channels, 8, finish_range);
}

template <const WinogradGradKernels& kKernels>
void run(const KernelArgs& args) noexcept {
  run_weight_grad(args, kKernels);
}

constexpr WinogradGradKernels kBaselineKernels = {baseline::kGemmLanes, baseline::outer_tiles,
                                                  baseline::column_sums, &baseline::kWinograd};
#if PYCNN_HAVE_AVX2
constexpr WinogradGradKernels kAvx2Kernels = {avx2::kGemmLanes, avx2::outer_tiles,
                                              avx2::column_sums, &avx2::kWinograd};
#endif
#if PYCNN_HAVE_AVX512
constexpr WinogradGradKernels kAvx512Kernels = {avx512::kGemmLanes, avx512::outer_tiles,
                                                avx512::column_sums, &avx512::kWinograd};
#endif

}  // namespace

const WinogradGradRun kWinogradGradBaseline = {run<kBaselineKernels>, &kBaselineKernels};
#if PYCNN_HAVE_AVX2
const WinogradGradRun kWinogradGradAvx2 = {run<kAvx2Kernels>, &kAvx2Kernels};
#endif
#if PYCNN_HAVE_AVX512
const WinogradGradRun kWinogradGradAvx512 = {run<kAvx512Kernels>, &kAvx512Kernels};
#endif

const char* refuse_winograd(const WeightGradProblem& p) {
  WindowProblem w;
  w.input = p.input, w.output = p.grad_output;
  w.groups = p.groups, w.kernel_size = p.kernel_size;
  w.stride = p.stride, w.dilation = p.dilation;
  if (p.input[0] == 0) return "the batch is empty";
  if (p.input[3] * p.grad_output[3] < kMinWeights) return "fewer than 512 pairs of channels";
  if (p.input[3] * p.grad_output[3] > kMaxWeights) return "the sums would take too much memory";
  return refuse_winograd(w);
}

Kernel make_winograd_weight_grad_kernel(const WeightGradProblem& p, const WinogradGradRun& entry) {
  WinogradGradPlan plan;
  plan.tiles = make_winograd_gradient_tiles(p.input, p.grad_output, p.kernel_size[0],
                                            {-p.padding[0], -p.padding[1]});
  plan.bias = p.bias;
  plan.block_width = 2 * entry.kernels->lanes;
  plan.in_blocks = ceil_div(p.input[3], plan.block_width);
  plan.out_blocks = ceil_div(p.grad_output[3], plan.block_width);
  const Index tile_bytes = plan.tiles.points() * (plan.in_blocks + plan.out_blocks) *
                           plan.block_width * Index{sizeof(float)};
  const Index count = plan.tiles.count();
  plan.steps = ceil_div(count, std::max(kTileStepBytes / tile_bytes, kLeastStepTiles));
  plan.step_tiles = ceil_div(count, plan.steps);
  plan.splits = ceil_div(plan.out_blocks, kBlocksOfSplit);

  Kernel kernel;
  kernel.run = entry.run;
  const Index floats =
      plan.tiles.points() * (plan.in_plane() + plan.grad_plane() + plan.sum_plane());
  kernel.scratch_bytes = static_cast<std::size_t>(floats) * sizeof(float);
  kernel.strided_inputs = 0b11;
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
