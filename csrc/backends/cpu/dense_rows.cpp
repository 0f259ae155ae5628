#include "backends/cpu/dense_rows.h"

#include <algorithm>

#include "backends/cpu/conv2d_input.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

struct DenseRowPlan {
  Index rows = 0, inputs = 0, outputs = 0;  // rows of the batch
  Index worker_floats = 0;
};

static_assert(std::has_unique_object_representations_v<DenseRowPlan>);

constexpr Index kLargeWeights = 1024 * 1024;  // floats; smaller ones are packed quickly
constexpr Index kChunkOutputs = 48;
constexpr Index kChunkRows = 64;     // of the batch, whose stretches stay in L2
constexpr Index kStretch = 1024;     // inputs
constexpr Index kGradStretch = 128;  // outputs
constexpr Index kGradBlocks = 8;     // of inputs, two vectors wide

DenseRowPlan plan_of(const Shape& rows, Index inputs, Index outputs) {
  DenseRowPlan plan;
  plan.rows = 1, plan.inputs = inputs, plan.outputs = outputs;
  for (std::size_t i = 0; i + 1 < rows.size(); ++i) plan.rows *= rows[i];
  return plan;
}

const char* refuse_small(const Shape& weight) {
  return weight[0] * weight[1] < kLargeWeights ? "the weight is small" : nullptr;
}

Kernel make_kernel(const DenseRowPlan& plan, const Problem& problem, KernelFunction run) {
  Kernel kernel;
  kernel.run = run;
  kernel.scratch_bytes =
      static_cast<std::size_t>(std::max(problem.threads, 1) * plan.worker_floats) * sizeof(float);
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

void run_forward(const KernelArgs& args, const DenseRowKernels& kernels) {
  const DenseRowPlan& plan = *reinterpret_cast<const DenseRowPlan*>(args.plan);
  const Epilogue& epilogue = std::get_if<ops::Dense>(args.op)->epilogue;
  const auto function = forward_of(*kernels.activation, epilogue.activation);
  const float slope = static_cast<float>(epilogue.slope);
  const bool has_bias = args.inputs.size() > (epilogue.residual ? 3u : 2u);
  const float* bias = has_bias ? args.inputs[2].as<const float>() : nullptr;
  const float* residual = epilogue.residual ? args.inputs.back().as<const float>() : nullptr;
  float* output = args.outputs[0].as<float>();
  const Index chunks = ceil_div(plan.outputs, kChunkOutputs);
  auto run_chunk = [&](std::int64_t chunk, int worker) {
    float* sums = reinterpret_cast<float*>(args.scratch) + worker * plan.worker_floats;
    const Index first = chunk * kChunkOutputs;
    RowDots dots;
    dots.b_rows = std::min(kChunkOutputs, plan.outputs - first);
    dots.a_pitch = dots.b_pitch = plan.inputs;
    dots.sums = sums, dots.sums_pitch = kChunkRows;
    for (Index row = 0; row < plan.rows; row += kChunkRows) {
      dots.a_rows = std::min(kChunkRows, plan.rows - row);
      for (Index k = 0; k < plan.inputs; k += kStretch) {
        dots.a = args.inputs[0].as<const float>() + row * plan.inputs + k;
        dots.b = args.inputs[1].as<const float>() + first * plan.inputs + k;
        dots.count = std::min(kStretch, plan.inputs - k);
        dots.accumulate = k > 0;
        kernels.dots(dots);
      }
      for (Index i = 0; i < dots.a_rows; ++i) {
        const Index at = (row + i) * plan.outputs + first;
        float* to = output + at;
        for (Index j = 0; j < dots.b_rows; ++j) {
          float x = sums[j * kChunkRows + i];
          if (bias) x += bias[first + j];
          if (residual) x += residual[at + j];
          to[j] = x;
        }
        if (function) function(to, to, dots.b_rows, slope);
      }
    }
  };
  parallel_for(args.threads, chunks, run_chunk);
}

// The weight is copied a block at a time, [block of inputs][output][two vectors], as window_tiles
// reads it; the sums grow in the result itself.
void run_grad_input(const KernelArgs& args, const DenseRowKernels& kernels) {
  const DenseRowPlan& plan = *reinterpret_cast<const DenseRowPlan*>(args.plan);
  constexpr Index kTap = 0;
  const Index width = 2 * kernels.lanes, chunk_inputs = kGradBlocks * width;
  auto run_chunk = [&](std::int64_t chunk, int worker) {
    float* blocks = reinterpret_cast<float*>(args.scratch) + worker * plan.worker_floats;
    const Index first = chunk * chunk_inputs;
    const Index inputs = std::min(chunk_inputs, plan.inputs - first);
    PixelBlocks copy;
    copy.rows = 1, copy.column = plan.inputs, copy.channels = inputs, copy.to = blocks;
    WindowTiles tiles;
    tiles.rows = 1, tiles.columns = plan.rows;
    tiles.taps = &kTap, tiles.tap_count = 1;
    tiles.weights = blocks;
    tiles.input_column = plan.outputs, tiles.output_column = plan.inputs;
    tiles.block_end = inputs / width, tiles.channels = inputs;
    tiles.output = args.outputs[0].as<float>() + first;
    for (Index o = 0; o < plan.outputs; o += kGradStretch) {
      copy.from = args.inputs[1].as<const float>() + o * plan.inputs + first;
      copy.columns = tiles.run = std::min(kGradStretch, plan.outputs - o);
      kernels.block(copy);
      tiles.input = args.inputs[0].as<const float>() + o;
      tiles.residual = o > 0 ? tiles.output : nullptr;
      kernels.tiles(tiles);
    }
  };
  if (plan.rows > 0) parallel_for(args.threads, ceil_div(plan.inputs, chunk_inputs), run_chunk);
}

template <const DenseRowKernels& kKernels>
void forward(const KernelArgs& args) noexcept {
  run_forward(args, kKernels);
}
template <const DenseRowKernels& kKernels>
void grad_input(const KernelArgs& args) noexcept {
  run_grad_input(args, kKernels);
}

constexpr DenseRowKernels kBaselineKernels = {baseline::kGemmLanes, baseline::row_dots,
                                              baseline::window_tiles, baseline::block_pixels,
                                              &baseline::kActivation};
#if PYCNN_HAVE_AVX2
constexpr DenseRowKernels kAvx2Kernels = {avx2::kGemmLanes, avx2::row_dots, avx2::window_tiles,
                                          avx2::block_pixels, &avx2::kActivation};
#endif
#if PYCNN_HAVE_AVX512
constexpr DenseRowKernels kAvx512Kernels = {avx512::kGemmLanes, avx512::row_dots,
                                            avx512::window_tiles, avx512::block_pixels,
                                            &avx512::kActivation};
#endif

}  // namespace

const DenseRowRun kDenseRowsBaseline = {forward<kBaselineKernels>, grad_input<kBaselineKernels>,
                                        &kBaselineKernels};
#if PYCNN_HAVE_AVX2
const DenseRowRun kDenseRowsAvx2 = {forward<kAvx2Kernels>, grad_input<kAvx2Kernels>, &kAvx2Kernels};
#endif
#if PYCNN_HAVE_AVX512
const DenseRowRun kDenseRowsAvx512 = {forward<kAvx512Kernels>, grad_input<kAvx512Kernels>,
                                      &kAvx512Kernels};
#endif

const char* refuse_rows(const ops::Dense&, const Problem& problem, const DenseRowRun&) {
  return refuse_small(problem.inputs[1].shape);
}

const char* refuse_rows(const ops::DenseGradInput&, const Problem& problem,
                        const DenseRowRun& entry) {
  if (problem.inputs[1].shape[1] % (2 * entry.kernels->lanes) != 0)
    return "the inputs do not fill their blocks";
  return refuse_small(problem.inputs[1].shape);
}

Kernel make_row_kernel(const ops::Dense& op, const Problem& problem, const DenseRowRun& entry) {
  const Shape& weight = problem.inputs[1].shape;
  DenseRowPlan plan = plan_of(problem.inputs[0].shape, weight[1], weight[0]);
  plan.worker_floats = kChunkOutputs * kChunkRows;
  Kernel kernel = make_kernel(plan, problem, entry.forward);
  if (op.epilogue.residual) kernel.in_place = {1u << (problem.inputs.size() - 1)};
  return kernel;
}

Kernel make_row_kernel(const ops::DenseGradInput&, const Problem& problem,
                       const DenseRowRun& entry) {
  const Shape& weight = problem.inputs[1].shape;
  DenseRowPlan plan = plan_of(problem.inputs[0].shape, weight[1], weight[0]);
  plan.worker_floats = kGradBlocks * 2 * entry.kernels->lanes * kGradStretch;
  return make_kernel(plan, problem, entry.grad_input);
}

}  // namespace pycnn::cpu
