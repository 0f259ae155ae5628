#include "backends/cpu/conv2d_winograd_groups.h"

#include <algorithm>

#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/conv2d_window_plan.h"
#include "backends/cpu/conv2d_winograd_strips.h"
#include "core/parallel.h"

namespace pycnn::cpu {

// The inner loops of one instruction set.
struct WinogradGroupKernels {
  const WinogradSet* transforms;
  const WinogradGroupSet* groups;
  const ActivationFunctions* activation;
  const BatchNormFunctions<float>* norm;
  const char* format;
  const char* transposed_format;
};

namespace {

struct WinogradGroupPlan {
  WinogradGroups groups;
  Index parts = 0;  // of the rows of tiles
  Index transposed = 0;
  MeasurePlan measure;
  ExtraInputs extra;
  float slope = 0;
  TileActivation tile_activation = TileActivation::kIdentity;
  ActivationKind activation = ActivationKind::kIdentity;
  std::uint16_t unused[3] = {};
};

constexpr Index kTileSliceChannels = 64;
constexpr Index kTilesOfPart = 16;  // of an item of work, at least

// [group][point][channel read][channel written]
void pack_tile_weights(const KernelArgs& args, const WinogradGroupKernels& kernels) {
  const auto& plan = *reinterpret_cast<const WinogradGroupPlan*>(args.plan);
  const Index channels = plan.groups.channels();
  WinogradTiles tiles = plan.groups.tiles;
  tiles.in_channels = tiles.out_channels = channels;  // those of one group
  WinogradWeights job = weights_of(tiles, args.inputs[0].as<const float>(), plan.transposed != 0);
  job.read_channels = job.width = job.valid = channels;
  job.plane = channels * channels;
  auto pack = [&](std::int64_t group, int) {
    WinogradWeights part = job;
    part.weight += group * tiles.taps() * channels * channels;
    part.points = args.outputs[0].as<float>() + group * plan.groups.weight_floats();
    transforms_of(tiles, *kernels.transforms).weights(part);
  };
  parallel_for(args.threads, plan.groups.count, pack);
}

// Slices of the same rows follow one another, so that memory is read in long runs.
WinogradItem tile_item_at(const WinogradGroupPlan& plan, Index index) {
  const WinogradGroups& groups = plan.groups;
  const Index part = index / groups.slices(), slice = index % groups.slices();
  return {groups.rows() * part / plan.parts, groups.rows() * (part + 1) / plan.parts,
          slice * groups.slice, std::min((slice + 1) * groups.slice, groups.count)};
}

// The tiles of a strip, transformed back; `points` is that of the first.
void write_tile_strip(const WinogradGroupPlan& plan, const WinogradGroupKernels& kernels,
                      const WindowTensors& tensors, const StripPlace& place, Index group,
                      const float* points) {
  const WinogradTiles& tiles = plan.groups.tiles;
  const Index channels = plan.groups.channels(), channel = group * channels;
  const Index first = (place.image * tiles.rows + place.row) * tiles.columns + place.column;
  const WinogradTransforms& transforms = transforms_of(tiles, *kernels.transforms);
  WinogradOutput job;
  job.plane = plan.groups.plane();
  job.channels = channels;
  job.pixel_pitch = tensors.output_pixel;
  job.row_pitch = tiles.out_columns * tensors.output_pixel;
  job.bias = tensors.bias ? tensors.bias + channel : nullptr;
  job.activation = plan.tile_activation, job.slope = plan.slope;
  for (Index t = 0; t < place.tiles; ++t) {
    const WinogradOutputs outputs = outputs_of(tiles, tensors.output_pixel, first + t);
    const Index at = outputs.at + channel;
    job.points = points + t * channels;
    job.rows = outputs.rows, job.columns = outputs.columns;
    job.output = tensors.output + at;
    job.residual = tensors.residual ? tensors.residual + at : nullptr;
    job.mask = tensors.mask ? tensors.mask + at : nullptr;
    transforms.output(job);
    for (Index row = 0; row < job.rows; ++row)
      activate(plan.activation, *kernels.activation,
               {job.output + row * job.row_pitch, job.columns, job.channels, job.pixel_pitch});
  }
}

// `next`: the item that this worker will probably take then.
void run_tile_item(const WinogradGroupPlan& plan, const WinogradGroupKernels& kernels,
                   const WindowTensors& tensors, const WinogradItem& item, const WinogradItem& next,
                   float* points) {
  const WinogradGroups& groups = plan.groups;
  const Index channels = groups.channels();
  const Index first = item.row * groups.row_strips, end = item.row_end * groups.row_strips;
  const Index batches = (item.group_end - item.group) * ceil_div(end - first, groups.batch_strips);
  const PixelRange inputs = input_pixels(groups.tiles, next);
  const PixelRange outputs = output_pixels(groups.tiles, next);
  WinogradGroupProducts products;
  products.points = points, products.plane = groups.plane();
  products.count = groups.tiles.points(), products.channels = channels;
  Index done = 0;
  for (Index group = item.group; group < item.group_end; ++group) {
    products.weights = tensors.weights + group * groups.weight_floats();
    for (Index s = first; s < end; s += groups.batch_strips, ++done) {
      const Index batch_end = std::min(s + groups.batch_strips, end);
      auto read = [&](const StripPlace& place, Index tile) {
        WinogradStrip strip =
            input_strip(groups, place, {tensors.input + group * channels, tensors.input_pixel});
        strip.points = points + tile * channels;
        kernels.groups->input(strip);
      };
      products.tiles = for_each_strip(groups, s, batch_end, read);
      products.fetch_input =
          share_of(groups, next, inputs, {tensors.input, tensors.input_pixel}, done, batches);
      products.fetch_output =
          share_of(groups, next, outputs, {tensors.output, tensors.output_pixel}, done, batches);
      kernels.groups->products(products);
      auto write = [&](const StripPlace& place, Index tile) {
        write_tile_strip(plan, kernels, tensors, place, group, points + tile * channels);
      };
      for_each_strip(groups, s, batch_end, write);
    }
  }
}

void measure_item(const WinogradGroupPlan& plan, const Measure& measure, Index index) {
  if (!measure.wanted()) return;
  const WinogradItem item = tile_item_at(plan, index);
  const Index channels = plan.groups.channels();
  const PixelRange pixels = output_pixels(plan.groups.tiles, item);
  MeasuredPart part(measure, index / plan.groups.slices(), item.group * channels,
                    (item.group_end - item.group) * channels);
  part.add(pixels.first, pixels.count);
}

void run_group_tiles(const KernelArgs& args, const WinogradGroupKernels& kernels) {
  const auto& plan = *reinterpret_cast<const WinogradGroupPlan*>(args.plan);
  const WindowTensors tensors = tensors_of(plan.extra, args);
  float* const scratch = reinterpret_cast<float*>(args.scratch);
  const Index items = plan.groups.slices() * plan.parts;
  const Measure measure(plan.measure, args, kernels.norm);
  auto run_one = [&](std::int64_t index, int worker) {
    const Index next = std::min(index + args.threads, items - 1);
    run_tile_item(plan, kernels, tensors, tile_item_at(plan, index), tile_item_at(plan, next),
                  scratch + worker * plan.groups.point_floats());
    measure_item(plan, measure, index);
  };
  parallel_for(args.threads, items, run_one);
  measure.finish();
}

template <const WinogradGroupKernels& kKernels>
void run_tiles_of_groups(const KernelArgs& args) noexcept {
  run_group_tiles(args, kKernels);
}
template <const WinogradGroupKernels& kKernels>
void pack_tiles_of_groups(const KernelArgs& args) noexcept {
  pack_tile_weights(args, kKernels);
}

constexpr WinogradGroupKernels kGroupTilesBaseline = {
    &baseline::kWinograd,
    &baseline::kWinogradGroups,
    &baseline::kActivation,
    &baseline::kBatchNorm,
    "conv2d.grouped.winograd.baseline",
    "conv2d_grad_input.grouped.winograd.baseline"};
#if PYCNN_HAVE_AVX2
constexpr WinogradGroupKernels kGroupTilesAvx2 = {
    &avx2::kWinograd,  &avx2::kWinogradGroups,         &avx2::kActivation,
    &avx2::kBatchNorm, "conv2d.grouped.winograd.avx2", "conv2d_grad_input.grouped.winograd.avx2"};
#endif
#if PYCNN_HAVE_AVX512
constexpr WinogradGroupKernels kGroupTilesAvx512 = {&avx512::kWinograd,
                                                    &avx512::kWinogradGroups,
                                                    &avx512::kActivation,
                                                    &avx512::kBatchNorm,
                                                    "conv2d.grouped.winograd.avx512",
                                                    "conv2d_grad_input.grouped.winograd.avx512"};
#endif

}  // namespace

const WinogradGroupRun kWinogradGroupsBaseline = {run_tiles_of_groups<kGroupTilesBaseline>,
                                                  pack_tiles_of_groups<kGroupTilesBaseline>,
                                                  &kGroupTilesBaseline, baseline::kGemmLanes};
#if PYCNN_HAVE_AVX2
const WinogradGroupRun kWinogradGroupsAvx2 = {run_tiles_of_groups<kGroupTilesAvx2>,
                                              pack_tiles_of_groups<kGroupTilesAvx2>,
                                              &kGroupTilesAvx2, avx2::kGemmLanes};
#endif
#if PYCNN_HAVE_AVX512
const WinogradGroupRun kWinogradGroupsAvx512 = {run_tiles_of_groups<kGroupTilesAvx512>,
                                                pack_tiles_of_groups<kGroupTilesAvx512>,
                                                &kGroupTilesAvx512, avx512::kGemmLanes};
#endif

const char* refuse_winograd_groups(const WindowProblem& w, Index lanes) {
  if (w.kernel_size != Pair{3, 3}) return "the window is not 3x3";
  if (w.stride != Pair{1, 1}) return "the stride is not 1";
  if (w.dilation != Pair{1, 1}) return "the window is dilated";
  return refuse_winograd_groups(w.input, w.output, w.groups, lanes);
}

Kernel make_winograd_group_kernel(const WindowProblem& w, int threads,
                                  const WinogradGroupRun& entry) {
  WinogradGroupPlan plan;
  const Pair padding = w.transposed ? Pair{2 - w.padding[0], 2 - w.padding[1]} : w.padding;
  plan.groups = make_winograd_groups(w.input, w.output, {-padding[0], -padding[1]}, w.groups);
  plan.groups.slice = std::clamp<Index>(kTileSliceChannels / plan.groups.channels(), 1, w.groups);
  const Index rows = ceil_div(kTilesOfPart, plan.groups.tiles.columns);
  plan.parts = ceil_div(plan.groups.rows(), rows);
  plan.transposed = w.transposed;
  plan.extra = ExtraInputs(w);
  plan.activation = w.epilogue.activation;
  plan.tile_activation = tile_activation(plan.activation);
  plan.slope = static_cast<float>(w.epilogue.slope);

  Kernel kernel;
  kernel.run = entry.run;
  kernel.scratch_bytes =
      static_cast<std::size_t>(std::max(threads, 1) * plan.groups.point_floats()) * sizeof(float);
  plan.measure = {w.measure, plan.parts, w.output[3], 0};
  plan.measure.reserve(kernel);
  kernel.packed.input = 1;
  kernel.packed.bytes =
      static_cast<std::size_t>(plan.groups.count * plan.groups.weight_floats()) * sizeof(float);
  kernel.packed.pack = entry.pack;
  kernel.packed.format = w.transposed ? entry.kernels->transposed_format : entry.kernels->format;
  kernel.in_place = {plan.extra.in_place()};
  kernel.strided_inputs = 1;
  kernel.strided_outputs = plan.extra.free_output();
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
