// 5x5 windows as four 3x3 ones (conv2d_winograd_bfloat16.h). Their inputs lie 2 pixels apart, which
// is a tile of 2x2 outputs: a chunk's tiles are transformed once, and each tile's sums run over its
// own points and those of its neighbours to the right and below.
#include <algorithm>

#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/conv2d_window_plan.h"
#include "backends/cpu/conv2d_winograd.h"
#include "backends/cpu/conv2d_winograd_bfloat16.h"
#include "backends/cpu/conv2d_winograd_tiles.h"
#include "backends/cpu/winograd_pairs.h"
#include "core/parallel.h"

namespace pycnn::cpu {

// The inner loops of one unit.
struct FiveTileKernels {
  const PairTileUnit* unit;
  const WinogradSet* weights;  // in float32
  const PairUnit* pairs;
  const BatchNormFunctions<BFloat16>* norm;
};

namespace {

struct FiveTilePlan {
  Index images = 0;
  Index in_rows = 0, in_columns = 0, in_channels = 0;
  Index out_rows = 0, out_columns = 0, out_channels = 0;
  Index first_row = 0, first_column = 0;  // of the first tile in the input
  Index rows = 0, columns = 0;            // of tiles in one image
  Index row_block = 1, row_blocks = 0;    // rows of tiles of a chunk
  Index splits = 1;                       // of the blocks of output channels
  Index steps = 0;                        // of input channels
  Index tile_pitch = 0, plane = 0, sum_plane = 0;
  Index transposed = 0;
  MeasurePlan measure;
  ExtraInputs extra;
  float slope = 0;
  ActivationKind activation = ActivationKind::kIdentity;
  std::uint8_t unused[7] = {};

  Index blocks() const { return ceil_div(out_channels, kPairBlock); }
  Index chunks() const { return images * row_blocks * splits; }
  // Tiles of a row of sums, and of points: an odd row is filled up with a tile that nobody wants.
  Index sum_columns() const { return ceil_div(columns, Index{2}) * 2; }
  Index point_columns() const { return sum_columns() + 1; }
  Index points() const { return kPairPoints * plane; }    // elements of a chunk
  Index sums() const { return kPairPoints * sum_plane; }  // floats of a block of a chunk
  Index step_weights() const { return 2 * kPairHalf; }
  Index block_weights() const { return steps * step_weights(); }
  Index weight_plane() const { return blocks() * block_weights(); }
  Index window_weights() const { return kPairPoints * weight_plane(); }  // of one 3x3 window
};

constexpr Index kFivePointElements = 256 * 1024;  // of a chunk, in the second-level cache
constexpr Index kFiveTiles = 6 * kPairTilesAtOnce;
constexpr Index kFiveShares = 16;
constexpr Index kFiveLine = 32;  // elements
constexpr Index kThreeTaps = 9;  // of a 3x3 window
constexpr Index kFiveWindows = 4;
constexpr Index kThreeWindow = kPairBlock * kThreeTaps * kPairStep;
constexpr Index kFiveStepPoints = kPairPoints * kPairStep * kPairBlock;

void choose_five_chunks(FiveTilePlan& plan) {
  // Odd numbers of cache lines, so that tiles and planes do not all fall into the same sets.
  plan.tile_pitch = (plan.steps | 1) * kFiveLine;
  auto plane = [&](Index rows) {
    return (rows + 1) * plan.point_columns() * plan.tile_pitch + kFiveLine;
  };
  const Index all = std::max<Index>(1, plan.rows);
  Index block = std::clamp<Index>(kFiveTiles / std::max<Index>(1, plan.columns), 1, all);
  while (block > 1 && kPairPoints * plane(block) > kFivePointElements) --block;
  plan.row_blocks = ceil_div(all, block);
  plan.row_block = ceil_div(all, plan.row_blocks);
  plan.plane = plane(plan.row_block);
  plan.sum_plane = plan.row_block * plan.sum_columns() * kPairBlock + kWinogradLine;
  while (plan.chunks() < kFiveShares && plan.splits * 2 <= plan.blocks()) plan.splits *= 2;
}

const FiveTilePlan& five_plan_of(const KernelArgs& args) {
  return *reinterpret_cast<const FiveTilePlan*>(args.plan);
}

// ---- Packing: [window][point][block of output channels][step][half][pair][16][2]

// Taps of one of the four windows along one side: those of the first have index 0 and 1, a third
// one is zero.
Index tap_of(Index window, Index tap) { return window == 0 && tap == 2 ? -1 : 2 * window + tap; }

// A step of a block of one window, as [output channel][tap][input channel], zeros where there is
// nothing.
void gather_window(const FiveTilePlan& plan, const float* weight, Index window, Index channel,
                   Index first, float* to) {
  constexpr Index kTaps = 25;
  std::fill_n(to, kThreeWindow, 0.0f);
  const Index in = plan.in_channels, out = plan.out_channels;
  const Index writes = std::min(kPairBlock, out - channel), reads = std::min(kPairStep, in - first);
  for (Index t = 0; t < kThreeTaps; ++t) {
    const Index row = tap_of(window / 2, t / 3), column = tap_of(window % 2, t % 3);
    if (row < 0 || column < 0) continue;
    const Index tap = row * 5 + column;
    for (Index o = 0; o < writes; ++o)
      for (Index c = 0; c < reads; ++c)
        to[(o * kThreeTaps + t) * kPairStep + c] =
            plan.transposed ? weight[((first + c) * kTaps + kTaps - 1 - tap) * out + channel + o]
                            : weight[((channel + o) * kTaps + tap) * in + first + c];
  }
}

void pack_five_tiles(const KernelArgs& args, const FiveTileKernels& kernels) {
  const FiveTilePlan& plan = five_plan_of(args);
  const auto* weight = args.inputs[0].as<const float>();
  auto* packed = args.outputs[0].as<BFloat16>();
  auto pack_step = [&](std::int64_t index, int worker) {
    const Index window = index % kFiveWindows, rest = index / kFiveWindows;
    const Index block = rest / plan.steps, step = rest % plan.steps;
    float* const taps =
        reinterpret_cast<float*>(args.scratch) + worker * (kThreeWindow + kFiveStepPoints);
    gather_window(plan, weight, window, block * kPairBlock, step * kPairStep, taps);
    WinogradWeights job;
    job.weight = taps;
    job.tap_pitch = kPairStep, job.read_pitch = 1, job.write_pitch = kThreeTaps * kPairStep;
    job.read_channels = kPairStep;
    job.width = job.valid = kPairBlock;
    job.points = taps + kThreeWindow, job.plane = kPairStep * kPairBlock;
    kernels.weights->two_by_three->weights(job);
    round_points(*kernels.pairs, job.points, plan.weight_plane(),
                 packed + window * plan.window_weights() + block * plan.block_weights() +
                     step * plan.step_weights());
  };
  parallel_for(args.threads, plan.blocks() * plan.steps * kFiveWindows, pack_step);
}

// ---- Running

struct FiveChunk {
  Index image, row, rows;  // of tiles
  Index block, block_end;
};

FiveChunk five_chunk_at(const FiveTilePlan& plan, Index index) {
  const Index split = index / (plan.images * plan.row_blocks);
  FiveChunk chunk;
  chunk.image = index / plan.row_blocks % plan.images;
  chunk.row = index % plan.row_blocks * plan.row_block;
  chunk.rows = std::min(plan.row_block, plan.rows - chunk.row);
  chunk.block = plan.blocks() * split / plan.splits;
  chunk.block_end = plan.blocks() * (split + 1) / plan.splits;
  return chunk;
}

void transform_five(const FiveTilePlan& plan, const PairTileUnit& unit, const TileTensors& tensors,
                    const FiveChunk& chunk, BFloat16* points) {
  PairTileInput job;
  job.image = tensors.input + chunk.image * plan.in_rows * plan.in_columns * tensors.input_pixel;
  job.rows = plan.in_rows, job.columns = plan.in_columns, job.channels = plan.in_channels;
  job.pixel_pitch = tensors.input_pixel;
  job.plane = plan.plane;
  for (Index r = 0; r <= chunk.rows; ++r)
    for (Index c = 0; c < plan.point_columns(); ++c) {
      job.row = plan.first_row + 2 * (chunk.row + r), job.column = plan.first_column + 2 * c;
      job.points = points + (r * plan.point_columns() + c) * plan.tile_pitch;
      unit.input(job);
    }
}

void finish_five(const FiveTilePlan& plan, const PairTileUnit& unit, const TileTensors& tensors,
                 const FiveChunk& chunk, Index block, const float* sums) {
  const Index channel = block * kPairBlock;
  PairTileOutput job;
  job.plane = plan.sum_plane;
  job.channels = std::min(kPairBlock, plan.out_channels - channel);
  job.pixel_pitch = tensors.output_pixel;
  job.row_pitch = plan.out_columns * tensors.output_pixel;
  job.bias = tensors.bias + channel;
  job.relu = plan.activation == ActivationKind::kRelu;
  job.activation = job.relu ? nullptr : forward_of(*unit.activation, plan.activation);
  job.slope = plan.slope;
  for (Index r = 0; r < chunk.rows; ++r)
    for (Index c = 0; c < plan.columns; ++c) {
      const Index row = 2 * (chunk.row + r), column = 2 * c;
      const Index at =
          ((chunk.image * plan.out_rows + row) * plan.out_columns + column) * tensors.output_pixel +
          channel;
      job.sums = sums + (r * plan.sum_columns() + c) * kPairBlock;
      job.rows = std::min<Index>(2, plan.out_rows - row);
      job.columns = std::min<Index>(2, plan.out_columns - column);
      job.output = tensors.output + at;
      job.residual = tensors.residual ? tensors.residual + at : nullptr;
      job.mask = tensors.mask ? tensors.mask + at : nullptr;
      unit.output(job);
    }
}

void measure_five(const FiveTilePlan& plan, const Measure& measure, Index index) {
  if (!measure.wanted()) return;
  const FiveChunk chunk = five_chunk_at(plan, index);
  const Index first = chunk.block * kPairBlock;
  const Index channels = std::min(chunk.block_end * kPairBlock, plan.out_channels) - first;
  const Index row = 2 * chunk.row, end = std::min(row + 2 * chunk.rows, plan.out_rows);
  MeasuredPart part(measure, index % plan.measure.parts, first, channels);
  part.add((chunk.image * plan.out_rows + row) * plan.out_columns, (end - row) * plan.out_columns);
}

void run_five_tiles(const KernelArgs& args, const FiveTileKernels& kernels) {
  const FiveTilePlan& plan = five_plan_of(args);
  const PairTileUnit& unit = *kernels.unit;
  float* const bias = reinterpret_cast<float*>(args.scratch);
  float* const all_sums = bias + plan.blocks() * kPairBlock;
  auto* const all_points = reinterpret_cast<BFloat16*>(all_sums + args.threads * plan.sums());
  const TileTensors tensors = tile_tensors_of(args, plan.extra, plan.out_channels, bias);
  const Measure measure(plan.measure, args, kernels.norm);
  auto run_chunk = [&](std::int64_t index, int worker) {
    const FiveChunk chunk = five_chunk_at(plan, index);
    BFloat16* const points = all_points + worker * plan.points();
    float* const sums = all_sums + worker * plan.sums();
    transform_five(plan, unit, tensors, chunk, points);
    ShiftedTileProducts job;
    job.points = points, job.plane = plan.plane, job.tile_pitch = plan.tile_pitch;
    job.row_pitch = plan.point_columns() * plan.tile_pitch;
    job.rows = chunk.rows, job.columns = plan.columns, job.steps = plan.steps;
    job.weight_plane = plan.weight_plane(), job.window_weights = plan.window_weights();
    job.sums = sums, job.sum_plane = plan.sum_plane, job.sum_row = plan.sum_columns() * kPairBlock;
    for (Index block = chunk.block; block < chunk.block_end; ++block) {
      job.weights = tensors.weights + block * plan.block_weights();
      unit.shifted_products(job);
      finish_five(plan, unit, tensors, chunk, block, sums);
    }
    measure_five(plan, measure, index);
  };
  parallel_for(args.threads, plan.chunks(), run_chunk);
  measure.finish();
}

template <const FiveTileKernels& kKernels>
void run_five(const KernelArgs& args) noexcept {
  run_five_tiles(args, kKernels);
}
template <const FiveTileKernels& kKernels>
void pack_five(const KernelArgs& args) noexcept {
  pack_five_tiles(args, kKernels);
}

constexpr FiveTileKernels kPortableFive = {&portable::kPairTiles, &baseline::kWinograd,
                                           &portable::kPairUnit, &baseline::kBatchNormBFloat16};
#if PYCNN_HAVE_AVX512
constexpr FiveTileKernels kAvx512Five = {&avx512_bf16::kPairTiles, &avx512::kWinograd,
                                         &avx512_bf16::kPairUnit, &avx512::kBatchNormBFloat16};
#endif

}  // namespace

const PairTileLoops kFiveTilesPortable = {run_five<kPortableFive>, pack_five<kPortableFive>};
#if PYCNN_HAVE_AVX512
const PairTileLoops kFiveTilesAvx512 = {run_five<kAvx512Five>, pack_five<kAvx512Five>};
#endif

Kernel make_five_tile_kernel(const WindowProblem& w, int threads, const PairTileLoops& entry) {
  FiveTilePlan plan;
  const Pair padding = w.transposed ? Pair{4 - w.padding[0], 4 - w.padding[1]} : w.padding;
  plan.images = w.input[0];
  plan.in_rows = w.input[1], plan.in_columns = w.input[2], plan.in_channels = w.input[3];
  plan.out_rows = w.output[1], plan.out_columns = w.output[2], plan.out_channels = w.output[3];
  plan.first_row = -padding[0], plan.first_column = -padding[1];
  plan.rows = ceil_div(plan.out_rows, Index{2}),
  plan.columns = ceil_div(plan.out_columns, Index{2});
  plan.transposed = w.transposed;
  plan.steps = ceil_div(plan.in_channels, kPairStep);
  plan.extra = ExtraInputs(w);
  plan.activation = w.epilogue.activation;
  plan.slope = static_cast<float>(w.epilogue.slope);
  choose_five_chunks(plan);

  Kernel kernel;
  kernel.run = entry.run;
  const Index workers = std::max(threads, 1);
  kernel.scratch_bytes =
      static_cast<std::size_t>(plan.blocks() * kPairBlock + workers * plan.sums()) * sizeof(float) +
      static_cast<std::size_t>(workers * plan.points()) * sizeof(BFloat16);
  plan.measure = {w.measure, plan.images * plan.row_blocks, plan.out_channels, 0};
  plan.measure.reserve(kernel);
  kernel.packed.input = 1;
  kernel.packed.bytes =
      static_cast<std::size_t>(kFiveWindows * plan.window_weights()) * sizeof(BFloat16);
  kernel.packed.pack_scratch_bytes =
      static_cast<std::size_t>(workers * (kThreeWindow + kFiveStepPoints)) * sizeof(float);
  kernel.packed.pack = entry.pack;
  kernel.packed.format =
      w.transposed ? "conv2d_grad_input.winograd5.bfloat16" : "conv2d.winograd5.bfloat16";
  kernel.in_place = {plan.extra.in_place()};
  kernel.strided_inputs = 1;
  kernel.strided_outputs = plan.extra.free_output();
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
