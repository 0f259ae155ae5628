#include "backends/cpu/conv2d_window.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/conv2d_window_plan.h"
#include "backends/cpu/strassen.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// ---- Packing

// The part of a packed weight that one list of taps reads for one block of output channels.
struct PackedBlock {
  float* to;
  Index width, valid;  // floats per read channel; those that are no padding
};

PackedBlock packed_block(const WindowPlan& plan, float* packed, const Pass& pass, Index block) {
  const Index group = block / plan.blocks, first = block % plan.blocks * plan.block_width;
  PackedBlock result;
  result.width = std::min(plan.block_width, plan.padded_channels() - first);
  result.valid = std::min(result.width, plan.group_channels - first);
  result.to = packed + pass.weights + group * plan.group_weights(pass) +
              first * pass.kernel_taps * plan.in_channels;
  return result;
}

// Weights were written last when the optimizer changed them: mostly they come from memory, in short
// runs, which the hardware does not foresee.
constexpr Index kLine = 16;  // floats

// Read channels follow one another in memory: whole cache lines of each output channel at a time.
void pack_rows(const WindowPlan& plan, const PackedBlock& block, const float* from,
               Index write_pitch, Index tap) {
  constexpr Index kRun = 2 * kLine, kAhead = 4 * kLine;
  float* to = block.to + tap * plan.in_channels * block.width;
  for (Index k = 0; k < plan.in_channels; k += kRun) {
    const Index run = std::min(kRun, plan.in_channels - k);
    for (Index c = 0; c < block.valid && k + kAhead < plan.in_channels; ++c)
      for (Index line = 0; line < kRun; line += kLine)
        __builtin_prefetch(from + c * write_pitch + k + kAhead + line);
#if PYCNN_HAVE_AVX512
    if (block.valid == avx512::kStrassenBlock) {
      avx512::strassen_turn(from + k, write_pitch, run, to + k * block.width);
      continue;
    }
#endif
    for (Index c = 0; c < block.width; ++c) {
      float* lane = to + k * block.width + c;
      if (c < block.valid) {
        const float* source = from + c * write_pitch + k;
        for (Index i = 0; i < run; ++i) lane[i * block.width] = source[i];
      } else {
        for (Index i = 0; i < run; ++i) lane[i * block.width] = 0;
      }
    }
  }
}

// Written channels follow one another in memory.
void pack_columns(const WindowPlan& plan, const PackedBlock& block, const float* from,
                  Index read_pitch, Index tap) {
  float* to = block.to + tap * plan.in_channels * block.width;
  const std::size_t bytes = static_cast<std::size_t>(block.valid) * sizeof(float);
  constexpr Index kAhead = 32;
  for (Index k = 0; k < plan.in_channels; ++k, to += block.width, from += read_pitch) {
    if (k + kAhead < plan.in_channels)
      for (Index line = 0; line < block.valid; line += kLine)
        __builtin_prefetch(from + kAhead * read_pitch + line);
    std::memcpy(to, from, bytes);
    std::fill(to + block.valid, to + block.width, 0.0f);
  }
}

void pack_weights(const KernelArgs& args) noexcept {
  const WindowPlan& plan = *reinterpret_cast<const WindowPlan*>(args.plan);
  const float* weight = args.inputs[0].as<const float>();
  float* packed = args.outputs[0].as<float>();
  const WeightLayout layout = weight_layout(plan);
  const Index blocks = plan.blocks * plan.groups;
  auto pack_block = [&](std::int64_t item, int) {
    const Pass& pass = plan.passes()[item / blocks];
    const Index index = item % blocks;
    const PackedBlock block = packed_block(plan, packed, pass, index);
    const float* first = weight + index / plan.blocks * layout.group_pitch +
                         index % plan.blocks * plan.block_width * layout.write_pitch;
    for (Index t = 0; t < pass.kernel_taps; ++t) {
      const KernelTap& tap = plan.kernel_taps()[pass.kernel_tap + t];
      const float* from = first + (tap.row * plan.kernel_size[1] + tap.column) * layout.tap_pitch;
      if (layout.read_pitch == 1)
        pack_rows(plan, block, from, layout.write_pitch, t);
      else
        pack_columns(plan, block, from, layout.read_pitch, t);
    }
  };
  parallel_for(args.threads, plan.pass_count * blocks, pack_block);
}

// ---- Running

void activate_tiles(const WindowPlan& plan, const WindowKernels& kernels,
                    const WindowTiles& tiles) {
  const Index first = tiles.block_begin * plan.block_width;
  const Index count = std::min(tiles.block_end * plan.block_width, plan.group_channels) - first;
  for (Index n = 0; n < tiles.images; ++n)
    for (Index row = 0; row < tiles.rows; ++row) {
      float* p = tiles.output + n * tiles.output_image + row * tiles.output_row + first;
      activate(plan.activation, *kernels.activation,
               {p, tiles.columns, count, tiles.output_column});
    }
}

// The pixels of a chunk, where they follow one another.
LineRuns read_pixels(const WindowPlan& plan, const WindowTensors& tensors, const ConvInput& in,
                     const WindowChunk& chunk) {
  const Index rows = std::min(chunk.rows, in.height - chunk.row);
  return {in.anchor(tensors.input + chunk.image * in.image_floats(), chunk.row),
          chunk.images * rows * in.width, plan.in_channels, in.pixel_pitch};
}

// Of runs, those from `begin` to `end` of `all` equal parts.
LineRuns share_of(const LineRuns& lines, Index begin, Index end, Index all) {
  const Index first = lines.runs * begin / all;
  return {lines.from + first * lines.pitch, lines.runs * end / all - first, lines.count,
          lines.pitch};
}

// Blocks whose results are measured as soon as they are there, while the nearest caches have them;
// the vectors of the sums are filled.
constexpr Index kMeasuredBlocks = 4;

// Whether blocks of a chunk are complete after one pass.
bool measured_by_blocks(const WindowPlan& plan) {
  return plan.pass_count == 1 && plan.groups == 1 && plan.out_stride == Pair{1, 1};
}

void run_pass(const WindowPlan& plan, const WindowKernels& kernels, const WindowTensors& tensors,
              const ConvInput& in, const WindowChunk& chunk, const Pass& pass, const float* buffer,
              const LineRuns& fetch, const Measure& measure, Index index) {
  const Index rows = std::min(chunk.rows, pass.rows - chunk.row);
  if (rows <= 0) return;
  const Index out_at = output_start(plan, tensors, chunk, pass);
  WindowTiles tiles;
  tiles.images = chunk.images, tiles.rows = rows, tiles.columns = pass.columns;
  tiles.input_image = in.direct ? in.image_floats() : in.buffer_floats(plan.row_block);
  tiles.input_row = in.row_step(), tiles.input_column = in.column_step();
  tiles.taps = plan.offsets() + pass.tap, tiles.tap_count = pass.taps, tiles.run = pass.run;
  tiles.channels = plan.group_channels;
  tiles.output_image = plan.out_pixels * tensors.output_pixel;
  tiles.output_row = plan.out_stride[0] * plan.out_columns * tensors.output_pixel;
  tiles.output_column = plan.out_stride[1] * tensors.output_pixel;
  tiles.activation = plan.tile_activation, tiles.slope = plan.slope;
  const bool by_blocks = measure.wanted() && measured_by_blocks(plan);
  const bool dense = tensors.output_pixel == plan.out_channels;
  const float* const measured = by_blocks && dense ? measure.norm_input() : nullptr;
  const float* anchor =
      in.direct ? in.anchor(tensors.input + chunk.image * in.image_floats(), chunk.row) : buffer;
  for (Index block = chunk.block; block < chunk.block_end;) {
    const Index group = block / plan.blocks, first = group * plan.blocks;
    const Index channel = group * plan.group_channels;
    tiles.block_begin = block - first;
    tiles.block_end = tiles.wanted_end = std::min(chunk.block_end - first, plan.blocks);
    if (by_blocks) tiles.block_end = std::min(tiles.block_end, tiles.block_begin + kMeasuredBlocks);
    tiles.fetch = share_of(fetch, block - chunk.block, first + tiles.block_end - chunk.block,
                           chunk.block_end - chunk.block);
    tiles.input = anchor + group * plan.in_channels;
    tiles.weights = tensors.weights + pass.weights + group * plan.group_weights(pass);
    tiles.output = tensors.output + out_at + channel;
    tiles.bias = tensors.bias ? tensors.bias + channel : nullptr;
    tiles.residual = tensors.residual ? tensors.residual + out_at + channel : nullptr;
    tiles.mask = tensors.mask ? tensors.mask + out_at + channel : nullptr;
    tiles.measured = measured ? measured + out_at + channel : nullptr;
    kernels.tiles(tiles);
    activate_tiles(plan, kernels, tiles);
    block = first + tiles.block_end;
    if (by_blocks) measure_chunk(plan, measure, index, first + tiles.block_begin, block);
  }
}

void run_window(const KernelArgs& args, const WindowKernels& kernels) {
  const WindowPlan& plan = *reinterpret_cast<const WindowPlan*>(args.plan);
  const WindowTensors tensors = tensors_of(plan.extra, args);
  const ConvInput in = plan.in.with_pixels(tensors.input_pixel);
  zero_output(plan, tensors.output, args.threads);
  const Index chunks = chunk_count(plan);
  const Measure measure(plan.measure, args, kernels.norm);
  auto run_chunk = [&](std::int64_t index, int worker) {
    const WindowChunk chunk = chunk_at(plan, index);
    float* buffer = nullptr;
    if (!in.direct) {
      buffer = reinterpret_cast<float*>(args.scratch) + worker * plan.worker_floats;
      for (Index n = 0; n < chunk.images; ++n)
        in.copy_rows(tensors.input + (chunk.image + n) * in.image_floats(), chunk.row, chunk.rows,
                     buffer + n * in.buffer_floats(plan.row_block));
    }
    // As a rule other threads take the chunks between.
    const Index next = index + args.threads;
    LineRuns fetch;
    if (plan.fetch && next < chunks) fetch = read_pixels(plan, tensors, in, chunk_at(plan, next));
    for (Index p = 0; p < plan.pass_count; ++p)
      run_pass(plan, kernels, tensors, in, chunk, plan.passes()[p], buffer, fetch, measure, index);
    if (!measured_by_blocks(plan)) measure_chunk(plan, measure, index);
  };
  parallel_for(args.threads, chunks, run_chunk);
  measure.finish();
}

constexpr WindowKernels kBaselineKernels = {baseline::kGemmLanes,
                                            baseline::window_tiles,
                                            &baseline::kActivation,
                                            &baseline::kBatchNorm,
                                            "conv2d.implicit_gemm.baseline",
                                            "conv2d_grad_input.implicit_gemm.baseline"};
void run_baseline(const KernelArgs& args) noexcept { run_window(args, kBaselineKernels); }
#if PYCNN_HAVE_AVX2
constexpr WindowKernels kAvx2Kernels = {
    avx2::kGemmLanes,  avx2::window_tiles,          &avx2::kActivation,
    &avx2::kBatchNorm, "conv2d.implicit_gemm.avx2", "conv2d_grad_input.implicit_gemm.avx2"};
void run_avx2(const KernelArgs& args) noexcept { run_window(args, kAvx2Kernels); }
#endif
#if PYCNN_HAVE_AVX512
constexpr WindowKernels kAvx512Kernels = {
    avx512::kGemmLanes,  avx512::window_tiles,          &avx512::kActivation,
    &avx512::kBatchNorm, "conv2d.implicit_gemm.avx512", "conv2d_grad_input.implicit_gemm.avx512"};
void run_avx512(const KernelArgs& args) noexcept { run_window(args, kAvx512Kernels); }
#endif

}  // namespace

const WindowRun kWindowBaseline = {run_baseline, &kBaselineKernels};
#if PYCNN_HAVE_AVX2
const WindowRun kWindowAvx2 = {run_avx2, &kAvx2Kernels};
#endif
#if PYCNN_HAVE_AVX512
const WindowRun kWindowAvx512 = {run_avx512, &kAvx512Kernels};
#endif

Kernel make_window_kernel(const WindowProblem& window, int threads, const WindowRun& entry) {
  Kernel kernel = plan_window_kernel(window, {}, entry.kernels->lanes, threads);
  kernel.run = entry.run;
  const auto& plan = *reinterpret_cast<const WindowPlan*>(kernel.plan.data());
  const bool at_anchor =
      std::all_of(plan.offsets(), plan.offsets() + plan.offset_count,
                  [](Index offset) { return offset == 0; }) &&
      std::all_of(plan.passes(), plan.passes() + plan.pass_count,
                  [&](const Pass& pass) { return pass.run == plan.in_channels; });
  kernel.strided_inputs = !plan.in.direct || at_anchor;
  // Pixels without a tap are cleared in one go.
  kernel.strided_outputs = plan.extra.free_output() && !plan.zero_fill;
  kernel.packed.pack = pack_weights;
  kernel.packed.format =
      window.transposed ? entry.kernels->transposed_format : entry.kernels->format;
  return kernel;
}

}  // namespace pycnn::cpu
