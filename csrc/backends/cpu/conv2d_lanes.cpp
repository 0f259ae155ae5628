#include "backends/cpu/conv2d_lanes.h"

#include <algorithm>
#include <numeric>

#include "backends/cpu/conv2d_lanes_tiles.h"
#include "backends/cpu/conv2d_window_plan.h"
#include "core/parallel.h"

namespace pycnn::cpu {

struct LaneKernels {
  Index lanes;
  void (*tiles)(const LaneTiles&);
  void (*spread)(const SpreadRow&);
  const ActivationFunctions* activation;
  const BatchNormFunctions<float>* norm;
  const char* format;
  const char* transposed_format;
};

namespace {

constexpr Index kMaxGroupInputs = 16;  // copies of the input rows
constexpr Index kMaxPatternVectors = 8;

Lanes choose_lanes(const WindowProblem& w, Index lanes) {
  const Index outputs = w.output[3];
  Lanes result;
  result.used = true;
  const Index pattern = std::lcm(outputs, lanes);
  const bool one_step = w.stride[1] == 1;
  result.flat = one_step && outputs % lanes != 0 && pattern <= kMaxPatternVectors * lanes;
  result.pattern = result.flat ? pattern : ceil_div(outputs, lanes) * lanes;
  // Two vectors at a time, when groups do not straddle them: more rows fit into the cache. With one
  // plane there is room anyway.
  const Index group = outputs / w.groups, group_inputs = w.input[3] / w.groups;
  const bool sliced = !result.flat && lanes % group == 0 && group_inputs <= group;
  result.width = sliced && group_inputs > 1 ? std::min(outputs, 2 * lanes) : outputs;
  return result;
}

// [tap][read channel][lane]
void pack_weights(const KernelArgs& args) noexcept {
  const WindowPlan& plan = *reinterpret_cast<const WindowPlan*>(args.plan);
  const float* weight = args.inputs[0].as<const float>();
  float* packed = args.outputs[0].as<float>();
  const WeightLayout layout = weight_layout(plan);
  for (Index p = 0; p < plan.pass_count; ++p) {
    const Pass& pass = plan.passes()[p];
    float* to = packed + pass.weights;
    for (Index t = 0; t < pass.kernel_taps; ++t) {
      const KernelTap& tap = plan.kernel_taps()[pass.kernel_tap + t];
      const float* from = weight + (tap.row * plan.kernel_size[1] + tap.column) * layout.tap_pitch;
      for (Index k = 0; k < plan.in_channels; ++k)
        for (Index lane = 0; lane < plan.lanes.pattern; ++lane) {
          const Index channel = plan.lanes.flat ? lane % plan.out_channels : lane;
          const Index group = channel / plan.group_channels;
          *to++ = channel < plan.out_channels
                      ? from[group * layout.group_pitch + k * layout.read_pitch +
                             channel % plan.group_channels * layout.write_pitch]
                      : 0.0f;
        }
    }
  }
}

// Output channels whose input rows are copied together, and what they read.
struct Slice {
  Index first, width;
};

Slice slice_at(const WindowPlan& plan, Index block) {
  const Index first = block * plan.lanes.width;
  return {first, std::min(plan.lanes.width, plan.out_channels - first)};
}

// The rows of one image that a chunk needs, zeros around them.
void copy_rows(const WindowPlan& plan, const LaneKernels& kernels, const float* image,
               const WindowChunk& chunk, const Slice& slice, float* buffer) {
  const ConvInput& in = plan.in;
  const Index pitch = in.pixel_pitch;
  const Index begin = std::clamp<Index>(-in.first_column, 0, in.buffer_columns);
  const Index end = std::clamp<Index>(in.width - in.first_column, begin, in.buffer_columns);
  SpreadRow spread;
  spread.columns = end - begin;
  spread.inputs = in.channels, spread.outputs = pitch;
  spread.group_inputs = plan.in_channels, spread.group_outputs = plan.group_channels;
  spread.plane_pitch = plan.lanes.plane_pitch;
  spread.end = image + in.height * in.width * in.channels;
  const Index first_input = slice.first / plan.group_channels * plan.in_channels;
  for (Index r = 0; r < in.buffer_rows(chunk.rows); ++r) {
    float* to = buffer + r * in.row_pitch;
    const Index row = chunk.row * in.stride[0] + in.first_row + r;
    if (row < 0 || row >= in.height || begin == end) {
      std::fill_n(to, in.row_pitch, 0.0f);
      continue;
    }
    spread.from = image + (row * in.width + in.first_column + begin) * in.channels + first_input;
    spread.to = to + begin * pitch;
    kernels.spread(spread);
    for (Index k = 0; k < plan.in_channels; ++k) {
      float* plane = to + k * plan.lanes.plane_pitch;
      std::fill(plane, plane + begin * pitch, 0.0f);
      std::fill(plane + end * pitch, plane + plan.lanes.plane_pitch, 0.0f);
    }
  }
}

void run_pass(const WindowPlan& plan, const LaneKernels& kernels, const WindowTensors& tensors,
              const WindowChunk& chunk, const Pass& pass, const Slice& slice, const float* buffer) {
  const Index rows = std::min(chunk.rows, pass.rows - chunk.row);
  const Index row_floats = pass.columns * plan.out_channels;
  const Index out_start = output_start(plan, tensors, chunk, pass) + slice.first;
  const Index out_row = plan.out_stride[0] * plan.out_columns * plan.out_channels;
  LaneTiles tiles;
  tiles.taps = plan.offsets() + pass.tap, tiles.tap_count = pass.taps;
  tiles.weights = tensors.weights + pass.weights + slice.first;
  tiles.weight_pitch = plan.lanes.pattern;
  tiles.bias = tensors.bias ? tensors.bias + slice.first : nullptr;
  tiles.activation = plan.tile_activation, tiles.slope = plan.slope;
  const Index out_column = plan.out_stride[1] * plan.out_channels;
  if (plan.lanes.flat) {
    tiles.vectors = plan.lanes.pattern / kernels.lanes;
    tiles.columns = ceil_div(row_floats, plan.lanes.pattern);
    tiles.input_column = tiles.output_column = tiles.valid = plan.lanes.pattern;
    tiles.last_valid = row_floats - (tiles.columns - 1) * plan.lanes.pattern;
  } else {
    tiles.vectors = ceil_div(slice.width, kernels.lanes);
    tiles.columns = pass.columns;
    tiles.input_column = plan.in.column_step();
    tiles.output_column = out_column;
    tiles.valid = tiles.last_valid = slice.width;
  }
  for (Index n = 0; n < chunk.images; ++n)
    for (Index row = 0; row < rows; ++row) {
      const Index out = out_start + n * plan.out_image + row * out_row;
      tiles.input = buffer + n * plan.in.buffer_floats(plan.row_block) + row * plan.in.row_step();
      tiles.output = tensors.output + out;
      tiles.residual = tensors.residual ? tensors.residual + out : nullptr;
      kernels.tiles(tiles);
      activate(plan.activation, *kernels.activation,
               {tiles.output, pass.columns, slice.width, out_column});
    }
}

void run_lanes(const KernelArgs& args, const LaneKernels& kernels) {
  const WindowPlan& plan = *reinterpret_cast<const WindowPlan*>(args.plan);
  WindowTensors tensors = tensors_of(plan.extra, args);
  zero_output(plan, tensors.output, args.threads);
  float* const scratch = reinterpret_cast<float*>(args.scratch) + plan.lanes.pattern;
  if (tensors.bias) {
    float* spread = reinterpret_cast<float*>(args.scratch);
    for (Index lane = 0; lane < plan.lanes.pattern; ++lane) {
      const Index channel = plan.lanes.flat ? lane % plan.out_channels : lane;
      spread[lane] = channel < plan.out_channels ? tensors.bias[channel] : 0.0f;
    }
    tensors.bias = spread;
  }
  const Measure measure(plan.measure, args, kernels.norm);
  auto run_chunk = [&](std::int64_t index, int worker) {
    const WindowChunk chunk = chunk_at(plan, index);
    float* buffer = scratch + worker * plan.worker_floats;
    for (Index block = chunk.block; block < chunk.block_end; ++block) {
      const Slice slice = slice_at(plan, block);
      for (Index n = 0; n < chunk.images; ++n)
        copy_rows(plan, kernels, tensors.input + (chunk.image + n) * plan.input_image, chunk, slice,
                  buffer + n * plan.in.buffer_floats(plan.row_block));
      for (Index p = 0; p < plan.pass_count; ++p)
        run_pass(plan, kernels, tensors, chunk, plan.passes()[p], slice, buffer);
    }
    measure_chunk(plan, measure, index);
  };
  parallel_for(args.threads, chunk_count(plan), run_chunk);
  measure.finish();
}

constexpr LaneKernels kBaselineKernels = {baseline::kGemmLanes,
                                          baseline::lane_tiles,
                                          baseline::spread_row,
                                          &baseline::kActivation,
                                          &baseline::kBatchNorm,
                                          "conv2d.lanes.baseline",
                                          "conv2d_grad_input.lanes.baseline"};
void run_baseline(const KernelArgs& args) noexcept { run_lanes(args, kBaselineKernels); }
#if PYCNN_HAVE_AVX2
constexpr LaneKernels kAvx2Kernels = {avx2::kGemmLanes,
                                      avx2::lane_tiles,
                                      avx2::spread_row,
                                      &avx2::kActivation,
                                      &avx2::kBatchNorm,
                                      "conv2d.lanes.avx2",
                                      "conv2d_grad_input.lanes.avx2"};
void run_avx2(const KernelArgs& args) noexcept { run_lanes(args, kAvx2Kernels); }
#endif
#if PYCNN_HAVE_AVX512
constexpr LaneKernels kAvx512Kernels = {avx512::kGemmLanes,
                                        avx512::lane_tiles,
                                        avx512::spread_row,
                                        &avx512::kActivation,
                                        &avx512::kBatchNorm,
                                        "conv2d.lanes.avx512",
                                        "conv2d_grad_input.lanes.avx512"};
void run_avx512(const KernelArgs& args) noexcept { run_lanes(args, kAvx512Kernels); }
#endif

}  // namespace

const LaneRun kLanesBaseline = {run_baseline, &kBaselineKernels, baseline::kGemmLanes};
#if PYCNN_HAVE_AVX2
const LaneRun kLanesAvx2 = {run_avx2, &kAvx2Kernels, avx2::kGemmLanes};
#endif
#if PYCNN_HAVE_AVX512
const LaneRun kLanesAvx512 = {run_avx512, &kAvx512Kernels, avx512::kGemmLanes};
#endif

const char* refuse_lanes(const WindowProblem& w, Index lanes) {
  const Index outputs = w.output[3] / w.groups, inputs = w.input[3] / w.groups;
  // Copying a plane per input channel must pay: halves of a short vector, quarters of a long one,
  // or one plane, which whole rows of a few channels fill to the last lane.
  const bool rows = w.groups == 1 && inputs == 1 && choose_lanes(w, lanes).flat;
  if (rows ? outputs > lanes : outputs * (inputs == 1 || lanes <= 8 ? 2 : 4) > lanes)
    return "groups fill the lanes";
  if (inputs > kMaxGroupInputs) return "too many input channels per group";
  if (w.groups == 1 && (inputs > 1 || w.stride[1] != 1)) return "one group with several channels";
  return nullptr;
}

Kernel make_lane_kernel(const WindowProblem& window, int threads, const LaneRun& entry) {
  Kernel kernel =
      plan_window_kernel(window, choose_lanes(window, entry.lanes), entry.lanes, threads);
  kernel.run = entry.run;
  kernel.packed.pack = pack_weights;
  kernel.packed.format =
      window.transposed ? entry.kernels->transposed_format : entry.kernels->format;
  return kernel;
}

}  // namespace pycnn::cpu
