#include "backends/cpu/conv2d_winograd_group_grad.h"

#include <algorithm>

#include "backends/cpu/conv2d_winograd_strips.h"
#include "core/parallel.h"

namespace pycnn::cpu {

struct WinogradGroupGradKernels {
  Index lanes;
  const WinogradGroupSet* groups;
  const WinogradSet* transforms;
  void (*column_sums)(const ColumnSums&);
  void (*add)(float* to, const float* from, Index count);
};

namespace {

// Sums of a group are kept as [point][output channel][read channel].
struct GroupTileGradPlan {
  WinogradGroups groups;
  Index block_rows = 1;  // of tiles, that all groups of a slice are read for in turn
  Index parts = 1;       // of the rows of tiles
  Index bias = 0, workers = 1;

  Index part_floats() const { return groups.count * groups.weight_floats(); }
  // After the points of all workers and the sums of all parts: the bias of all parts but the first.
  Index sums_at() const { return workers * 2 * groups.point_floats(); }
  Index bias_at() const { return sums_at() + parts * part_floats(); }
};

static_assert(std::has_unique_object_representations_v<GroupTileGradPlan>);

constexpr Index kTileSliceSums = 96 * 1024;  // floats that stay in L2
constexpr Index kTileSliceWidth = 128;
constexpr Index kTileBatchFloats = 384;  // of a point: enough tiles to repay reading the sums again
constexpr Index kTilesOfBlock = 16;
constexpr Index kWantedTileItems = 16;

struct GroupTileTensors {
  GroupImages input, grad_output;
  float* grad_weight;
  float* grad_bias;  // null without
  float* scratch;
};

// Strips [first, end), of one group.
struct TileBatch {
  Index group, first, end;
};

// A batch of tiles, added to the sums of their group; `points` is what `job` reads.
void add_tile_batch(const GroupTileGradPlan& plan, const WinogradGroupGradKernels& kernels,
                    const GroupTileTensors& tensors, const TileBatch& batch, float* points,
                    WinogradGroupSums& job, float* bias) {
  const WinogradGroups& groups = plan.groups;
  const Index channels = groups.channels(), channel = batch.group * channels;
  float* const grads = points + groups.point_floats();
  auto transform = [&](const StripPlace& place, Index tile) {
    WinogradStrip strip =
        input_strip(groups, place, {tensors.input.pixels + channel, tensors.input.pitch});
    strip.points = points + tile * channels;
    kernels.groups->input(strip);
    strip = gradient_strip(groups, place,
                           {tensors.grad_output.pixels + channel, tensors.grad_output.pitch});
    strip.points = grads + tile * channels;
    kernels.groups->gradient(strip);
  };
  job.tiles = for_each_strip(groups, batch.first, batch.end, transform);
  kernels.groups->sums(job);
  if (bias == nullptr) return;
  // The point in which a tile's gradients are all added up.
  ColumnSums sums;
  sums.b = grads + (groups.tiles.side() + 1) * groups.plane();
  sums.rows = 1, sums.columns = job.tiles, sums.b_column = channels, sums.n = channels;
  sums.sums = bias + channel, sums.accumulate = job.accumulate;
  kernels.column_sums(sums);
}

// One slice of the groups through one part of the tiles.
void add_tile_item(const GroupTileGradPlan& plan, const WinogradGroupGradKernels& kernels,
                   const GroupTileTensors& tensors, Index part, Index slice, int worker) {
  const WinogradGroups& groups = plan.groups;
  const Index first_row = groups.rows() * part / plan.parts;
  const Index end_row = groups.rows() * (part + 1) / plan.parts;
  WinogradItem next;  // the rows of the next block
  next.group = slice * groups.slice;
  next.group_end = std::min(next.group + groups.slice, groups.count);
  float* const sums = tensors.scratch + plan.sums_at() + part * plan.part_floats();
  float* bias = tensors.grad_bias;
  if (bias && part > 0)
    bias = tensors.scratch + plan.bias_at() + (part - 1) * groups.tiles.out_channels;
  WinogradGroupSums job;
  float* const points = tensors.scratch + worker * 2 * groups.point_floats();
  job.inputs = points, job.grads = points + groups.point_floats();
  job.plane = groups.plane(), job.count = groups.tiles.points();
  job.channels = groups.channels();
  for (Index row = first_row; row < end_row; row += plan.block_rows) {
    const Index first = row * groups.row_strips;
    const Index end = std::min(row + plan.block_rows, end_row) * groups.row_strips;
    next.row = std::min(row + plan.block_rows, end_row - 1);
    next.row_end = std::min(next.row + plan.block_rows, end_row);
    const PixelRange inputs = input_pixels(groups.tiles, next);
    const PixelRange outputs = output_pixels(groups.tiles, next);
    const Index batches =
        (next.group_end - next.group) * ceil_div(end - first, groups.batch_strips);
    Index done = 0;
    for (Index group = next.group; group < next.group_end; ++group) {
      job.sums = sums + group * groups.weight_floats();
      for (Index s = first; s < end; s += groups.batch_strips, ++done) {
        job.accumulate = row > first_row || s > first;
        job.fetch_input = share_of(groups, next, inputs, tensors.input, done, batches);
        job.fetch_grad = share_of(groups, next, outputs, tensors.grad_output, done, batches);
        const TileBatch batch{group, s, std::min(s + groups.batch_strips, end)};
        add_tile_batch(plan, kernels, tensors, batch, points, job, bias);
      }
    }
  }
}

void finish_tile_group(const GroupTileGradPlan& plan, const WinogradGroupGradKernels& kernels,
                       const GroupTileTensors& tensors, Index group) {
  const WinogradGroups& groups = plan.groups;
  const Index channels = groups.channels();
  float* const sums = tensors.scratch + plan.sums_at() + group * groups.weight_floats();
  for (Index part = 1; part < plan.parts; ++part)
    kernels.add(sums, sums + part * plan.part_floats(), groups.weight_floats());
  WinogradSums job;
  job.plane = channels * channels, job.block_pitch = 2 * kernels.lanes;
  job.read_channels = job.tap_pitch = channels;
  for (Index o = 0; o < channels; ++o) {
    job.points = sums + o * channels;
    job.weight = tensors.grad_weight + (group * channels + o) * groups.tiles.taps() * channels;
    transforms_of(groups.tiles, *kernels.transforms).sums(job);
  }
}

void run_group_tile_grad(const KernelArgs& args, const WinogradGroupGradKernels& kernels) {
  const auto& plan = *reinterpret_cast<const GroupTileGradPlan*>(args.plan);
  GroupTileTensors tensors;
  tensors.input = {args.inputs[0].as<const float>(), args.inputs[0].pitch()};
  tensors.grad_output = {args.inputs[1].as<const float>(), args.inputs[1].pitch()};
  tensors.grad_weight = args.outputs[0].as<float>();
  tensors.grad_bias = plan.bias ? args.outputs[1].as<float>() : nullptr;
  tensors.scratch = reinterpret_cast<float*>(args.scratch);
  const Index slices = plan.groups.slices();
  auto run_one = [&](std::int64_t index, int worker) {
    add_tile_item(plan, kernels, tensors, index / slices, index % slices, worker);
  };
  parallel_for(args.threads, plan.parts * slices, run_one);
  auto finish = [&](std::int64_t group, int) { finish_tile_group(plan, kernels, tensors, group); };
  parallel_for(args.threads, plan.groups.count, finish);
  if (plan.bias)
    for (Index part = 1; part < plan.parts; ++part)
      kernels.add(tensors.grad_bias,
                  tensors.scratch + plan.bias_at() + (part - 1) * plan.groups.tiles.out_channels,
                  plan.groups.tiles.out_channels);
}

template <const WinogradGroupGradKernels& kKernels>
void run_tile_grad_of_groups(const KernelArgs& args) noexcept {
  run_group_tile_grad(args, kKernels);
}

constexpr WinogradGroupGradKernels kGroupTileGradBaseline = {
    baseline::kGemmLanes, &baseline::kWinogradGroups, &baseline::kWinograd, baseline::column_sums,
    baseline::add_floats};
#if PYCNN_HAVE_AVX2
constexpr WinogradGroupGradKernels kGroupTileGradAvx2 = {avx2::kGemmLanes, &avx2::kWinogradGroups,
                                                         &avx2::kWinograd, avx2::column_sums,
                                                         avx2::add_floats};
#endif
#if PYCNN_HAVE_AVX512
constexpr WinogradGroupGradKernels kGroupTileGradAvx512 = {
    avx512::kGemmLanes, &avx512::kWinogradGroups, &avx512::kWinograd, avx512::column_sums,
    avx512::add_floats};
#endif

}  // namespace

const WinogradGroupGradRun kWinogradGroupGradBaseline = {
    run_tile_grad_of_groups<kGroupTileGradBaseline>, &kGroupTileGradBaseline, baseline::kGemmLanes};
#if PYCNN_HAVE_AVX2
const WinogradGroupGradRun kWinogradGroupGradAvx2 = {run_tile_grad_of_groups<kGroupTileGradAvx2>,
                                                     &kGroupTileGradAvx2, avx2::kGemmLanes};
#endif
#if PYCNN_HAVE_AVX512
const WinogradGroupGradRun kWinogradGroupGradAvx512 = {
    run_tile_grad_of_groups<kGroupTileGradAvx512>, &kGroupTileGradAvx512, avx512::kGemmLanes};
#endif

const char* refuse_winograd_groups(const WeightGradProblem& p, Index lanes) {
  if (p.input[0] == 0) return "the batch is empty";
  if (p.kernel_size != Pair{3, 3}) return "the window is not 3x3";
  if (p.stride != Pair{1, 1}) return "the stride is not 1";
  if (p.dilation != Pair{1, 1}) return "the window is dilated";
  return refuse_winograd_groups(p.input, p.grad_output, p.groups, lanes);
}

Kernel make_winograd_group_grad_kernel(const WeightGradProblem& p, int threads,
                                       const WinogradGroupGradRun& entry) {
  GroupTileGradPlan plan;
  plan.groups =
      make_winograd_groups(p.input, p.grad_output, {-p.padding[0], -p.padding[1]}, p.groups);
  WinogradGroups& groups = plan.groups;
  const Index most =
      std::min(kTileSliceWidth / groups.channels(), kTileSliceSums / groups.weight_floats());
  groups.slice = std::clamp<Index>(most, 1, p.groups);
  const Index batch = std::clamp<Index>(kTileBatchFloats / groups.channels(), 8, 24);
  groups.batch_strips = std::max<Index>(1, batch / groups.strip);
  plan.block_rows =
      ceil_div(std::max(kTilesOfBlock, groups.batch_strips * groups.strip), groups.tiles.columns);
  while (plan.parts * groups.slices() < kWantedTileItems &&
         plan.parts * 2 * plan.block_rows <= groups.rows())
    plan.parts *= 2;
  plan.bias = p.bias;
  plan.workers = std::max(threads, 1);

  Kernel kernel;
  kernel.run = entry.run;
  const Index bias = plan.bias ? (plan.parts - 1) * groups.tiles.out_channels : 0;
  kernel.scratch_bytes = static_cast<std::size_t>(plan.bias_at() + bias) * sizeof(float);
  kernel.strided_inputs = 0b11;
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
