#include "backends/cpu/conv2d_scatter.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/conv2d_input.h"
#include "core/parallel.h"

namespace pycnn::cpu {

struct ScatterKernels {
  void (*tiles)(const WindowTiles&);
  void (*scatter)(const ScatterColumns&);
  const char* format;
};

namespace {

// Followed in the plan's bytes by the offsets of the taps.
struct ScatterPlan {
  Index images = 0;
  Index grad_rows = 0, grad_columns = 0, grad_channels = 0;
  Index rows = 0, columns = 0, channels = 0;  // of the input whose gradient this is
  Pair stride = {1, 1};
  Pair padding = {0, 0};                 // top, left
  Index padded_rows = 0, row_pitch = 0;  // of a worker's image with all pixels that taps reach
  Index taps = 0, run = 0;
  Index block_width = 0;
  Index row_block = 1, image_block = 1;
  Index image_floats = 0, worker_floats = 0;

  const Index* offsets() const { return reinterpret_cast<const Index*>(this + 1); }
  Index filter() const { return taps * run; }
  Index blocks() const { return ceil_div(filter(), block_width); }
  Index padded_filter() const {
    const Index rest = filter() % block_width;
    return filter() - rest +
           (rest == 0                 ? 0
            : rest <= block_width / 2 ? block_width / 2
                                      : block_width);
  }
};

static_assert(std::has_unique_object_representations_v<ScatterPlan>);

constexpr Index kColumnFloats = 32 * 1024;  // products that wait to be added

void pack_filters(const KernelArgs& args) noexcept {
  const ScatterPlan& plan = *reinterpret_cast<const ScatterPlan*>(args.plan);
  const float* weight = args.inputs[0].as<const float>();
  float* to = args.outputs[0].as<float>();
  for (Index first = 0; first < plan.filter(); first += plan.block_width) {
    const Index width = std::min(plan.block_width, plan.padded_filter() - first);
    const Index valid = std::min(width, plan.filter() - first);
    for (Index k = 0; k < plan.grad_channels; ++k, to += width) {
      const float* from = weight + k * plan.filter() + first;
      std::copy(from, from + valid, to);
      std::fill(to + valid, to + width, 0.0f);
    }
  }
}

void run_image(const ScatterPlan& plan, const ScatterKernels& kernels, const float* weights,
               const float* grad_output, Index grad_pixel, float* grad_input, float* buffer) {
  float* const image = buffer;
  float* const products = buffer + plan.image_floats;
  std::fill_n(image, plan.image_floats, 0.0f);
  static constexpr Index kNoOffset = 0;
  for (Index row = 0; row < plan.grad_rows; row += plan.row_block) {
    const Index rows = std::min(plan.row_block, plan.grad_rows - row);
    WindowTiles tiles;
    tiles.rows = 1, tiles.columns = rows * plan.grad_columns;
    tiles.input = grad_output + row * plan.grad_columns * grad_pixel;
    tiles.input_column = grad_pixel;
    tiles.taps = &kNoOffset, tiles.tap_count = 1, tiles.run = plan.grad_channels;
    tiles.weights = weights;
    tiles.block_end = plan.blocks(), tiles.channels = plan.filter();
    tiles.output = products, tiles.output_column = plan.filter();
    kernels.tiles(tiles);
    for (Index r = 0; r < rows; ++r) {
      ScatterColumns scatter;
      scatter.columns = products + r * plan.grad_columns * plan.filter();
      scatter.pixels = plan.grad_columns, scatter.taps = plan.taps, scatter.run = plan.run;
      scatter.offsets = plan.offsets();
      scatter.output = image + (row + r) * plan.stride[0] * plan.row_pitch;
      scatter.output_column = plan.stride[1] * plan.channels;
      kernels.scatter(scatter);
    }
  }
  // Without the padding. Pixels that no tap reaches lie outside the buffer: their gradient is zero.
  const Index width = plan.columns * plan.channels, left = plan.padding[1] * plan.channels;
  const Index reached = std::clamp<Index>(plan.row_pitch - left, 0, width);
  for (Index row = 0; row < plan.rows; ++row) {
    float* to = grad_input + row * width;
    const Index from = row + plan.padding[0];
    const Index count = from < plan.padded_rows ? reached : 0;
    if (count > 0)
      std::memcpy(to, image + from * plan.row_pitch + left,
                  static_cast<std::size_t>(count) * sizeof(float));
    std::fill(to + count, to + width, 0.0f);
  }
}

void run_scatter(const KernelArgs& args, const ScatterKernels& kernels) {
  const ScatterPlan& plan = *reinterpret_cast<const ScatterPlan*>(args.plan);
  const float* grad_output = args.inputs[0].as<const float>();
  const float* weights = args.inputs[1].as<const float>();
  const Index grad_pixel = args.inputs[0].pitch();
  float* grad_input = args.outputs[0].as<float>();
  auto run_chunk = [&](std::int64_t chunk, int worker) {
    float* buffer = reinterpret_cast<float*>(args.scratch) + worker * plan.worker_floats;
    const Index end = std::min((chunk + 1) * plan.image_block, plan.images);
    for (Index n = chunk * plan.image_block; n < end; ++n)
      run_image(plan, kernels, weights,
                grad_output + n * plan.grad_rows * plan.grad_columns * grad_pixel, grad_pixel,
                grad_input + n * plan.rows * plan.columns * plan.channels, buffer);
  };
  parallel_for(args.threads, ceil_div(plan.images, plan.image_block), run_chunk);
}

constexpr ScatterKernels kBaselineKernels = {baseline::window_tiles, baseline::scatter_columns,
                                             "conv2d_grad_input.scatter.baseline"};
void run_baseline(const KernelArgs& args) noexcept { run_scatter(args, kBaselineKernels); }
#if PYCNN_HAVE_AVX2
constexpr ScatterKernels kAvx2Kernels = {avx2::window_tiles, avx2::scatter_columns,
                                         "conv2d_grad_input.scatter.avx2"};
void run_avx2(const KernelArgs& args) noexcept { run_scatter(args, kAvx2Kernels); }
#endif
#if PYCNN_HAVE_AVX512
constexpr ScatterKernels kAvx512Kernels = {avx512::window_tiles, avx512::scatter_columns,
                                           "conv2d_grad_input.scatter.avx512"};
void run_avx512(const KernelArgs& args) noexcept { run_scatter(args, kAvx512Kernels); }
#endif

Index round_up(Index value, Index unit) { return ceil_div(value, unit) * unit; }

}  // namespace

const ScatterRun kScatterBaseline = {run_baseline, &kBaselineKernels, baseline::kGemmLanes};
#if PYCNN_HAVE_AVX2
const ScatterRun kScatterAvx2 = {run_avx2, &kAvx2Kernels, avx2::kGemmLanes};
#endif
#if PYCNN_HAVE_AVX512
const ScatterRun kScatterAvx512 = {run_avx512, &kAvx512Kernels, avx512::kGemmLanes};
#endif

const char* refuse_scatter(const ops::Conv2dGradInput& op, const Problem& problem, Index lanes) {
  if (op.groups != 1) return "has groups";
  const Shape& weight = problem.inputs[1].shape;
  const Shape& grad = problem.inputs[0].shape;
  const Index taps = weight[1] * weight[2], channels = weight[3];
  // Vector operations per image; adding one vector of products costs about eight multiply-adds.
  const double direct = static_cast<double>(op.input_size[0] * op.input_size[1]) /
                        static_cast<double>(op.stride[0] * op.stride[1]) *
                        static_cast<double>(taps * ceil_div(channels, lanes) * weight[0]);
  const Index run = op.dilation[1] == 1 ? weight[2] * channels : channels;
  const Index adds = 8 * taps * channels / run * ceil_div(run, lanes);
  const double scattered = static_cast<double>(grad[1] * grad[2]) *
                           static_cast<double>(ceil_div(taps * channels, lanes) * weight[0] + adds);
  return scattered < 0.7 * direct ? nullptr : "lanes are well filled by the input's channels";
}

Kernel make_scatter_kernel(const ops::Conv2dGradInput& op, const Problem& problem,
                           const ScatterRun& entry) {
  const Shape& grad = problem.inputs[0].shape;
  const Shape& weight = problem.inputs[1].shape;
  ScatterPlan plan;
  plan.images = grad[0], plan.grad_rows = grad[1], plan.grad_columns = grad[2];
  plan.grad_channels = grad[3];
  plan.rows = op.input_size[0], plan.columns = op.input_size[1], plan.channels = weight[3];
  plan.stride = op.stride, plan.padding = {op.padding.top, op.padding.left};
  plan.padded_rows = (grad[1] - 1) * op.stride[0] + (weight[1] - 1) * op.dilation[0] + 1;
  plan.row_pitch =
      ((grad[2] - 1) * op.stride[1] + (weight[2] - 1) * op.dilation[1] + 1) * plan.channels;
  const bool merged = op.dilation[1] == 1;
  plan.run = plan.channels * (merged ? weight[2] : 1);
  std::vector<Index> offsets;
  for (Index i = 0; i < weight[1]; ++i)
    for (Index j = 0; j < (merged ? 1 : weight[2]); ++j)
      offsets.push_back(i * op.dilation[0] * plan.row_pitch + j * op.dilation[1] * plan.channels);
  plan.taps = static_cast<Index>(offsets.size());
  plan.block_width = 2 * entry.lanes;

  const Index row_floats = plan.grad_columns * plan.filter();
  plan.row_block = std::clamp<Index>(kColumnFloats / row_floats, 1, plan.grad_rows);
  const double image_flops = 2.0 * static_cast<double>(plan.grad_rows * row_floats) *
                             static_cast<double>(plan.grad_channels);
  plan.image_block =
      static_cast<Index>(std::clamp(std::ceil(kChunkFlops / image_flops), 1.0,
                                    static_cast<double>(std::max<Index>(plan.images, 1))));
  plan.image_floats = round_up(plan.padded_rows * plan.row_pitch + entry.lanes, 16);
  plan.worker_floats = plan.image_floats + round_up(plan.row_block * row_floats, 16) + 16;

  Kernel kernel;
  kernel.run = entry.run;
  const auto workers = static_cast<std::size_t>(std::max(problem.threads, 1));
  kernel.scratch_bytes = workers * static_cast<std::size_t>(plan.worker_floats) * sizeof(float);
  kernel.packed = {
      1, static_cast<std::size_t>(plan.padded_filter() * plan.grad_channels) * sizeof(float),
      pack_filters, 0, entry.kernels->format};
  kernel.strided_inputs = 1;
  append_to_plan(kernel.plan, &plan, 1);
  append_to_plan(kernel.plan, offsets.data(), offsets.size());
  return kernel;
}

}  // namespace pycnn::cpu
