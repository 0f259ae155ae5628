#include "backends/cpu/conv2d_winograd_bfloat16.h"

#include <algorithm>

#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/conv2d_window_plan.h"
#include "backends/cpu/conv2d_winograd.h"
#include "backends/cpu/conv2d_winograd_tiles.h"
#include "backends/cpu/winograd_pairs.h"
#include "core/parallel.h"

namespace pycnn::cpu {

// The inner loops of one unit.
struct PairTileKernels {
  const PairTileUnit* unit;
  const WinogradSet* weights;  // in float32
  const PairUnit* pairs;
  const BatchNormFunctions<BFloat16>* norm;
};

namespace {

struct PairTilePlan {
  WinogradTiles tiles;
  WinogradShares shares;
  Index steps = 0;  // of input channels
  Index tile_pitch = 0, plane = 0, sum_plane = 0;
  Index transposed = 0;
  MeasurePlan measure;
  ExtraInputs extra;
  float slope = 0;
  ActivationKind activation = ActivationKind::kIdentity;
  std::uint8_t unused[7] = {};

  Index points() const { return kPairPoints * plane; }    // elements of a chunk
  Index sums() const { return kPairPoints * sum_plane; }  // floats of a block of a chunk
  Index step_weights() const { return 2 * kPairHalf; }
  Index block_weights() const { return steps * step_weights(); }
  Index weight_plane() const { return shares.blocks * block_weights(); }
};

// ---- Planning

constexpr Index kLeastChannels = 32;          // fewer do not repay the transforms
constexpr Index kLeastFiveSide = 8;           // of outputs: below, 5x5 windows gain nothing
constexpr Index kPointElements = 256 * 1024;  // of a chunk, in the second-level cache
constexpr Index kStripTiles = kPairTilesAtOnce;
constexpr Index kLeastStrips = 2, kMostStrips = 6;
constexpr Index kLineElements = 32;

void choose_tile_chunks(PairTilePlan& plan) {
  const Index channels = plan.steps * kPairStep;
  const Index strips = std::clamp(kPointElements / (kPairPoints * channels * kStripTiles),
                                  kLeastStrips, kMostStrips);
  plan.shares =
      share_out(plan.tiles, strips * kStripTiles, ceil_div(plan.tiles.out_channels, kPairBlock));
  // Odd numbers of cache lines, so that tiles and planes do not all fall into the same sets. Tiles
  // are multiplied by twos.
  const Index even = ceil_div(plan.shares.chunk_tiles, 2) * 2;
  plan.tile_pitch = (plan.steps | 1) * kLineElements;
  plan.plane = even * plan.tile_pitch + kLineElements;
  plan.sum_plane = even * kPairBlock + kWinogradLine;
}

const PairTilePlan& tile_plan_of(const KernelArgs& args) {
  return *reinterpret_cast<const PairTilePlan*>(args.plan);
}

constexpr Index kStepPoints = kPairPoints * kPairStep * kPairBlock;

// ---- Packing: [point][block of output channels][step][half][pair][16][2]

void pack_pair_tiles(const KernelArgs& args, const PairTileKernels& kernels) {
  const PairTilePlan& plan = tile_plan_of(args);
  const Index in = plan.tiles.in_channels, out = plan.tiles.out_channels;
  WinogradWeights job =
      weights_of(plan.tiles, args.inputs[0].as<const float>(), plan.transposed != 0);
  job.width = kPairBlock, job.plane = kPairStep * kPairBlock;
  auto* packed = args.outputs[0].as<BFloat16>();
  auto pack_step = [&](std::int64_t index, int worker) {
    const Index block = index / plan.steps, step = index % plan.steps;
    const Index channel = block * kPairBlock, first = step * kPairStep;
    float* const points = reinterpret_cast<float*>(args.scratch) + worker * kStepPoints;
    WinogradWeights part = job;
    part.weight += channel * job.write_pitch + first * job.read_pitch;
    part.valid = std::min(kPairBlock, out - channel);
    part.read_channels = std::min(kPairStep, in - first);
    part.points = points;
    if (part.read_channels < kPairStep) std::fill_n(points, kStepPoints, 0.0f);
    kernels.weights->two_by_three->weights(part);
    round_points(*kernels.pairs, points, plan.weight_plane(),
                 packed + block * plan.block_weights() + step * plan.step_weights());
  };
  parallel_for(args.threads, plan.shares.blocks * plan.steps, pack_step);
}

// ---- Running

void transform_tile(const PairTilePlan& plan, const PairTileUnit& unit, const TileTensors& tensors,
                    Index tile, BFloat16* points) {
  auto job = input_of<PairTileInput>(plan.tiles, tensors.input, tensors.input_pixel, tile);
  job.points = points + tile % plan.shares.chunk_tiles * plan.tile_pitch;
  job.plane = plan.plane;
  unit.input(job);
}

void finish_block(const PairTilePlan& plan, const PairTileUnit& unit, const TileTensors& tensors,
                  const WinogradChunk& chunk, Index block, const float* sums) {
  const Index channel = block * kPairBlock;
  PairTileOutput job;
  job.plane = plan.sum_plane;
  job.channels = std::min(kPairBlock, plan.tiles.out_channels - channel);
  job.pixel_pitch = tensors.output_pixel;
  job.row_pitch = plan.tiles.out_columns * tensors.output_pixel;
  job.bias = tensors.bias + channel;
  job.relu = plan.activation == ActivationKind::kRelu;
  job.activation = job.relu ? nullptr : forward_of(*unit.activation, plan.activation);
  job.slope = plan.slope;
  for (Index t = 0; t < chunk.tiles; ++t) {
    const WinogradOutputs outputs = outputs_of(plan.tiles, tensors.output_pixel, chunk.tile + t);
    const Index at = outputs.at + channel;
    job.sums = sums + t * kPairBlock;
    job.rows = outputs.rows, job.columns = outputs.columns;
    job.output = tensors.output + at;
    job.residual = tensors.residual ? tensors.residual + at : nullptr;
    job.mask = tensors.mask ? tensors.mask + at : nullptr;
    unit.output(job);
  }
}

void run_pair_tiles(const KernelArgs& args, const PairTileKernels& kernels) {
  const PairTilePlan& plan = tile_plan_of(args);
  const WinogradShares& shares = plan.shares;
  const PairTileUnit& unit = *kernels.unit;
  float* const bias = reinterpret_cast<float*>(args.scratch);
  float* const all_sums = bias + shares.blocks * kPairBlock;
  auto* const all_points = reinterpret_cast<BFloat16*>(all_sums + args.threads * plan.sums());
  const TileTensors tensors = tile_tensors_of(args, plan.extra, plan.tiles.out_channels, bias);
  if (shares.shared())
    parallel_ranges(args.threads, plan.tiles.count(), 4, [&](std::int64_t begin, std::int64_t end) {
      for (Index tile = begin; tile < end; ++tile)
        transform_tile(plan, unit, tensors, tile,
                       all_points + tile / shares.chunk_tiles * plan.points());
    });
  const Measure measure(plan.measure, args, kernels.norm);
  auto run_chunk = [&](std::int64_t index, int worker) {
    const WinogradChunk chunk = chunk_at(plan.tiles, shares, index);
    BFloat16* points =
        all_points + (shares.shared() ? shares.tiles_of(index) : worker) * plan.points();
    float* sums = all_sums + worker * plan.sums();
    if (!shares.shared())
      for (Index tile = chunk.tile; tile < chunk.tile + chunk.tiles; ++tile)
        transform_tile(plan, unit, tensors, tile, points);
    PairTileProducts job;
    job.points = points, job.plane = plan.plane, job.tile_pitch = plan.tile_pitch;
    job.tiles = ceil_div(chunk.tiles, 2) * 2, job.steps = plan.steps;
    job.weight_plane = plan.weight_plane();
    job.sums = sums, job.sum_plane = plan.sum_plane;
    for (Index block = chunk.block; block < chunk.block_end; ++block) {
      job.weights = tensors.weights + block * plan.block_weights();
      unit.products(job);
      finish_block(plan, unit, tensors, chunk, block, sums);
    }
    measure_tiles(plan.tiles, shares, kPairBlock, measure, index);
  };
  parallel_for(args.threads, shares.count(), run_chunk);
  measure.finish();
}

template <const PairTileKernels& kKernels>
void run(const KernelArgs& args) noexcept {
  run_pair_tiles(args, kKernels);
}
template <const PairTileKernels& kKernels>
void pack(const KernelArgs& args) noexcept {
  pack_pair_tiles(args, kKernels);
}

constexpr PairTileKernels kPortableTiles = {&portable::kPairTiles, &baseline::kWinograd,
                                            &portable::kPairUnit, &baseline::kBatchNormBFloat16};
#if PYCNN_HAVE_AVX512
constexpr PairTileKernels kAvx512PairTiles = {&avx512_bf16::kPairTiles, &avx512::kWinograd,
                                              &avx512_bf16::kPairUnit, &avx512::kBatchNormBFloat16};
#endif

}  // namespace

TileTensors tile_tensors_of(const KernelArgs& args, const ExtraInputs& extra, Index out_channels,
                            float* bias) {
  auto optional = [&](Index i) -> const TensorView* {
    return i < 0 ? nullptr : &args.inputs[static_cast<std::size_t>(i)];
  };
  std::fill_n(bias, ceil_div(out_channels, kPairBlock) * kPairBlock, 0.0f);
  if (const TensorView* view = optional(extra.bias))
    std::copy_n(view->as<const float>(), out_channels, bias);
  const TensorView *residual = optional(extra.residual), *mask = optional(extra.mask);
  return {args.inputs[0].as<const BFloat16>(),
          args.inputs[1].as<const BFloat16>(),
          bias,
          residual ? residual->as<const BFloat16>() : nullptr,
          mask ? mask->as<const BFloat16>() : nullptr,
          args.outputs[0].as<BFloat16>(),
          args.inputs[0].pitch(),
          args.outputs[0].pitch()};
}

void round_points(const PairUnit& unit, const float* points, Index plane, BFloat16* to) {
  for (Index p = 0; p < kPairPoints; ++p, points += kPairStep * kPairBlock)
    for (Index half = 0; half < 2; ++half)
      for (Index odd = 0; odd < 2; ++odd) {
        PairWeights job;
        job.from = points + odd * kPairBlock + half * 16;
        job.columns = 16, job.column_pitch = 1;
        job.elements = kPairStep / 2, job.element_pitch = 2 * kPairBlock;
        job.pairs = kPairStep / 4;
        job.to = to + p * plane + half * kPairHalf + odd * kPairHalf / 2;
        unit.pack(job);
      }
}

const PairTileRun kPairTilesPortable = {{run<kPortableTiles>, pack<kPortableTiles>},
                                        &kFiveTilesPortable};
#if PYCNN_HAVE_AVX512
const PairTileRun kPairTilesAvx512 = {{run<kAvx512PairTiles>, pack<kAvx512PairTiles>},
                                      &kFiveTilesAvx512};
#endif

const char* refuse_pair_tiles(const WindowProblem& w) {
  if (const char* refused = refuse_winograd(w)) return refused;
  if (std::min(w.input[3], w.output[3]) < kLeastChannels) return "fewer than 32 channels";
  const bool five = w.kernel_size == Pair{5, 5};
  if (five && std::min(w.output[1], w.output[2]) < kLeastFiveSide)
    return "an output side of a 5x5 window is below 8";
  return nullptr;
}

Kernel make_pair_tile_kernel(const WindowProblem& w, int threads, const PairTileRun& entry) {
  if (w.kernel_size == Pair{5, 5}) return make_five_tile_kernel(w, threads, *entry.five);
  PairTilePlan plan;
  const Pair padding = w.transposed ? Pair{2 - w.padding[0], 2 - w.padding[1]} : w.padding;
  plan.tiles = make_winograd_tiles(w.input, w.output, 3, {-padding[0], -padding[1]}, 2);
  plan.transposed = w.transposed;
  plan.steps = ceil_div(plan.tiles.in_channels, kPairStep);
  plan.extra = ExtraInputs(w);
  plan.activation = w.epilogue.activation;
  plan.slope = static_cast<float>(w.epilogue.slope);
  choose_tile_chunks(plan);

  Kernel kernel;
  kernel.run = entry.three.run;
  const Index workers = std::max(threads, 1);
  const Index chunks = plan.shares.shared() ? plan.shares.chunks : workers;
  kernel.scratch_bytes =
      static_cast<std::size_t>(plan.shares.blocks * kPairBlock + workers * plan.sums()) *
          sizeof(float) +
      static_cast<std::size_t>(chunks * plan.points()) * sizeof(BFloat16);
  plan.measure = {w.measure, plan.shares.chunks, plan.tiles.out_channels, 0};
  plan.measure.reserve(kernel);
  kernel.packed.input = 1;
  kernel.packed.bytes =
      static_cast<std::size_t>(kPairPoints * plan.weight_plane()) * sizeof(BFloat16);
  kernel.packed.pack_scratch_bytes =
      static_cast<std::size_t>(workers * kStepPoints) * sizeof(float);
  kernel.packed.pack = entry.three.pack;
  kernel.packed.format =
      w.transposed ? "conv2d_grad_input.winograd.bfloat16" : "conv2d.winograd.bfloat16";
  kernel.in_place = {plan.extra.in_place()};
  kernel.strided_inputs = 1;
  kernel.strided_outputs = plan.extra.free_output();
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
