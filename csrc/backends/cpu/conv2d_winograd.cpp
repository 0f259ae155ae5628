#include "backends/cpu/conv2d_winograd.h"

#include <algorithm>

#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/conv2d_window_plan.h"
#include "backends/cpu/conv2d_winograd_tiles.h"
#include "core/parallel.h"

namespace pycnn::cpu {

// The inner loops of one instruction set.
struct WinogradKernels {
  Index lanes;
  void (*tiles)(const WindowTiles&);
  const WinogradSet* transforms;
  const ActivationFunctions* activation;
  const BatchNormFunctions<float>* norm;
  const char* format;
  const char* transposed_format;
};

namespace {

struct WinogradPlan {
  WinogradTiles tiles;
  WinogradShares shares;
  Index block_width = 0, padded_channels = 0;                      // of output channels
  Index in_pitch = 0, in_plane = 0, out_pitch = 0, out_plane = 0;  // of transformed tiles
  Index weight_plane = 0;
  Index transposed = 0;
  MeasurePlan measure;
  ExtraInputs extra;
  float slope = 0;
  TileActivation tile_activation = TileActivation::kIdentity;
  ActivationKind activation = ActivationKind::kIdentity;
  std::uint16_t unused[3] = {};

  Index in_floats() const { return tiles.points() * in_plane; }  // of a chunk
  Index out_floats() const { return tiles.points() * out_plane; }
};

// ---- Planning

constexpr Index kMinChannels = 16;           // fewer do not repay the transforms
constexpr Index kMinSide = 4;                // outputs
constexpr Index kLargeWeights = 256 * 1024;  // transformed floats that no cache of a core holds
constexpr Index kMaxChunkTiles = 96;
constexpr Index kLine = kWinogradLine;

// Tiles of a chunk: what they become in both transforms stays in the cache, unless large weights
// would have to be read again for too few of them.
Index choose_chunk_tiles(const WinogradPlan& plan, Index lanes) {
  const Index cache = lanes == 16 ? 256 * 1024 : 96 * 1024;  // floats
  const Index step = lanes == 16 ? 14 : 6;                   // tiles that one product takes at once
  const Index fitting =
      cache / (plan.tiles.points() * (plan.tiles.in_channels + plan.tiles.out_channels));
  const bool large =
      plan.tiles.points() * plan.tiles.in_channels * plan.tiles.out_channels > kLargeWeights;
  const Index wanted = std::clamp<Index>(fitting, large ? 4 * step : 2 * step, kMaxChunkTiles);
  return wanted / step * step;
}

void choose_pitches(WinogradPlan& plan) {
  const WinogradShares& shares = plan.shares;
  // An odd number of cache lines, so that tiles do not all fall into the same sets.
  plan.in_pitch = (ceil_div(plan.tiles.in_channels, kLine) | 1) * kLine;
  plan.in_plane = shares.chunk_tiles * plan.in_pitch + kLine;
  plan.out_pitch =
      (ceil_div(ceil_div(shares.blocks, shares.splits) * plan.block_width, kLine) | 1) * kLine;
  plan.out_plane = shares.chunk_tiles * plan.out_pitch + kLine;
}

// ---- Packing

// [point][block of output channels][read channel][width]
void pack_weights(const KernelArgs& args, const WinogradKernels& kernels) {
  const WinogradPlan& plan = *reinterpret_cast<const WinogradPlan*>(args.plan);
  const Index in = plan.tiles.in_channels, out = plan.tiles.out_channels;
  const WinogradTransforms& transforms = transforms_of(plan.tiles, *kernels.transforms);
  WinogradWeights job =
      weights_of(plan.tiles, args.inputs[0].as<const float>(), plan.transposed != 0);
  job.plane = plan.weight_plane;
  // Stretches of read channels, so that few large blocks are shared out too.
  constexpr Index kStretch = 64;
  const Index stretches = ceil_div(in, kStretch);
  auto pack = [&](std::int64_t index, int) {
    const Index block = index / stretches, first = index % stretches * kStretch;
    const Index channel = block * plan.block_width;
    WinogradWeights part = job;
    part.width = std::min(plan.block_width, plan.padded_channels - channel);
    part.valid = std::min(part.width, out - channel);
    part.read_channels = std::min(kStretch, in - first);
    part.weight += channel * job.write_pitch + first * job.read_pitch;
    part.points = args.outputs[0].as<float>() + channel * in + first * part.width;
    transforms.weights(part);
  };
  parallel_for(args.threads, plan.shares.blocks * stretches, pack);
}

// ---- Running

// Tiles from `tile` on, to the planes of their chunk.
void transform_inputs(const WinogradPlan& plan, const WinogradTransforms& transforms,
                      const WindowTensors& tensors, Index tile, Index tiles, float* points) {
  for (Index t = tile; t < tile + tiles; ++t) {
    auto job = input_of<WinogradInput>(plan.tiles, tensors.input, tensors.input_pixel, t);
    job.points = points + t % plan.shares.chunk_tiles * plan.in_pitch;
    job.plane = plan.in_plane, job.block_pitch = plan.block_width;
    transforms.input(job);
  }
}

void multiply(const WinogradPlan& plan, const WinogradKernels& kernels, const float* weights,
              const WinogradChunk& chunk, const float* in, float* out) {
  constexpr Index kTap = 0;
  WindowTiles tiles;
  tiles.rows = 1, tiles.columns = chunk.tiles;
  tiles.input_column = plan.in_pitch, tiles.output_column = plan.out_pitch;
  tiles.taps = &kTap, tiles.tap_count = 1, tiles.run = plan.tiles.in_channels;
  tiles.block_begin = chunk.block, tiles.block_end = chunk.block_end;
  tiles.channels = plan.tiles.out_channels;
  for (Index point = 0; point < plan.tiles.points(); ++point) {
    tiles.input = in + point * plan.in_plane;
    tiles.weights = weights + point * plan.weight_plane;
    tiles.output = out + point * plan.out_plane - chunk.block * plan.block_width;
    kernels.tiles(tiles);
  }
}

void transform_outputs(const WinogradPlan& plan, const WinogradKernels& kernels,
                       const WindowTensors& tensors, const WinogradChunk& chunk,
                       const float* points) {
  const Index channel = chunk.block * plan.block_width;
  const WinogradTransforms& transforms = transforms_of(plan.tiles, *kernels.transforms);
  WinogradOutput job;
  job.plane = plan.out_plane;
  job.channels = std::min(chunk.block_end * plan.block_width, plan.tiles.out_channels) - channel;
  job.pixel_pitch = tensors.output_pixel;
  job.row_pitch = plan.tiles.out_columns * tensors.output_pixel;
  job.bias = tensors.bias ? tensors.bias + channel : nullptr;
  job.activation = plan.tile_activation, job.slope = plan.slope;
  for (Index t = 0; t < chunk.tiles; ++t) {
    const WinogradOutputs outputs = outputs_of(plan.tiles, tensors.output_pixel, chunk.tile + t);
    const Index at = outputs.at + channel;
    job.points = points + t * plan.out_pitch;
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

void run_winograd(const KernelArgs& args, const WinogradKernels& kernels) {
  const WinogradPlan& plan = *reinterpret_cast<const WinogradPlan*>(args.plan);
  const WindowTensors tensors = tensors_of(plan.extra, args);
  float* const scratch = reinterpret_cast<float*>(args.scratch);
  const WinogradTransforms& transforms = transforms_of(plan.tiles, *kernels.transforms);
  const WinogradShares& shares = plan.shares;
  if (shares.shared()) {
    auto transform = [&](std::int64_t begin, std::int64_t end) {
      for (Index tile = begin; tile < end; ++tile)
        transform_inputs(plan, transforms, tensors, tile, 1,
                         scratch + tile / shares.chunk_tiles * plan.in_floats());
    };
    parallel_ranges(args.threads, plan.tiles.count(), 4, transform);
  }
  const Index ins = shares.shared() ? shares.chunks : args.threads;
  const Measure measure(plan.measure, args, kernels.norm);
  auto run_chunk = [&](std::int64_t index, int worker) {
    const WinogradChunk chunk = chunk_at(plan.tiles, shares, index);
    float* in = scratch + (shares.shared() ? shares.tiles_of(index) : worker) * plan.in_floats();
    float* out = scratch + ins * plan.in_floats() + worker * plan.out_floats();
    if (!shares.shared()) transform_inputs(plan, transforms, tensors, chunk.tile, chunk.tiles, in);
    multiply(plan, kernels, tensors.weights, chunk, in, out);
    transform_outputs(plan, kernels, tensors, chunk, out);
    measure_tiles(plan.tiles, shares, plan.block_width, measure, index);
  };
  parallel_for(args.threads, shares.count(), run_chunk);
  measure.finish();
}

template <const WinogradKernels& kKernels>
void run(const KernelArgs& args) noexcept {
  run_winograd(args, kKernels);
}
template <const WinogradKernels& kKernels>
void pack(const KernelArgs& args) noexcept {
  pack_weights(args, kKernels);
}

constexpr WinogradKernels kBaselineKernels = {baseline::kGemmLanes,
                                              baseline::window_tiles,
                                              &baseline::kWinograd,
                                              &baseline::kActivation,
                                              &baseline::kBatchNorm,
                                              "conv2d.winograd.baseline",
                                              "conv2d_grad_input.winograd.baseline"};
#if PYCNN_HAVE_AVX2
constexpr WinogradKernels kAvx2Kernels = {avx2::kGemmLanes,
                                          avx2::window_tiles,
                                          &avx2::kWinograd,
                                          &avx2::kActivation,
                                          &avx2::kBatchNorm,
                                          "conv2d.winograd.avx2",
                                          "conv2d_grad_input.winograd.avx2"};
#endif
#if PYCNN_HAVE_AVX512
constexpr WinogradKernels kAvx512Kernels = {avx512::kGemmLanes,
                                            avx512::window_tiles,
                                            &avx512::kWinograd,
                                            &avx512::kActivation,
                                            &avx512::kBatchNorm,
                                            "conv2d.winograd.avx512",
                                            "conv2d_grad_input.winograd.avx512"};
#endif

}  // namespace

const WinogradRun kWinogradBaseline = {run<kBaselineKernels>, pack<kBaselineKernels>,
                                       &kBaselineKernels};
#if PYCNN_HAVE_AVX2
const WinogradRun kWinogradAvx2 = {run<kAvx2Kernels>, pack<kAvx2Kernels>, &kAvx2Kernels};
#endif
#if PYCNN_HAVE_AVX512
const WinogradRun kWinogradAvx512 = {run<kAvx512Kernels>, pack<kAvx512Kernels>, &kAvx512Kernels};
#endif

const char* refuse_winograd(const WindowProblem& w) {
  if (w.kernel_size != Pair{3, 3} && w.kernel_size != Pair{5, 5})
    return "the window is neither 3x3 nor 5x5";
  if (w.stride != Pair{1, 1}) return "the stride is not 1";
  if (w.dilation != Pair{1, 1}) return "the window is dilated";
  if (w.groups != 1) return "there are groups";
  if (std::min(w.input[3], w.output[3]) < kMinChannels) return "fewer than 16 channels";
  if (std::min(w.output[1], w.output[2]) < kMinSide) return "an output side is below 4";
  return nullptr;
}

Kernel make_winograd_kernel(const WindowProblem& w, int threads, const WinogradRun& entry) {
  WinogradPlan plan;
  const Index window = w.kernel_size[0];
  const Pair padding =
      w.transposed ? Pair{window - 1 - w.padding[0], window - 1 - w.padding[1]} : w.padding;
  const Pair first = {-padding[0], -padding[1]};
  plan.tiles = w.transposed ? make_winograd_gradient_tiles(w.input, w.output, window, first)
                            : make_winograd_tiles(w.input, w.output, window, first);
  plan.transposed = w.transposed;
  const Index lanes = entry.kernels->lanes, rest = plan.tiles.out_channels % (2 * lanes);
  plan.block_width = 2 * lanes;
  plan.padded_channels = plan.tiles.out_channels - rest +
                         (rest == 0       ? 0
                          : rest <= lanes ? lanes
                                          : 2 * lanes);
  plan.weight_plane = plan.tiles.in_channels * plan.padded_channels;
  plan.extra = ExtraInputs(w);
  plan.activation = w.epilogue.activation;
  plan.tile_activation = tile_activation(plan.activation);
  plan.slope = static_cast<float>(w.epilogue.slope);
  plan.shares = share_out(plan.tiles, choose_chunk_tiles(plan, lanes),
                          ceil_div(plan.tiles.out_channels, plan.block_width));
  choose_pitches(plan);

  Kernel kernel;
  kernel.run = entry.run;
  const Index workers = std::max(threads, 1);
  const Index ins = plan.shares.shared() ? plan.shares.chunks : workers;
  kernel.scratch_bytes =
      static_cast<std::size_t>(ins * plan.in_floats() + workers * plan.out_floats()) *
      sizeof(float);
  plan.measure = {w.measure, plan.shares.chunks, plan.tiles.out_channels, 0};
  plan.measure.reserve(kernel);
  kernel.packed.input = 1;
  kernel.packed.bytes =
      static_cast<std::size_t>(plan.tiles.points() * plan.weight_plane) * sizeof(float);
  kernel.packed.pack = entry.pack;
  kernel.packed.format = w.transposed ? entry.kernels->transposed_format : entry.kernels->format;
  kernel.in_place = {plan.extra.in_place()};
  kernel.strided_inputs = 1;
  kernel.strided_outputs = plan.extra.free_output();
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
