#include <cstdlib>
#include <string_view>

#include "backends/cpu/conv2d_bfloat16.h"
#include "backends/cpu/conv2d_bfloat16_weight_grad.h"
#include "backends/cpu/conv2d_grouped.h"
#include "backends/cpu/conv2d_grouped_pair_grad.h"
#include "backends/cpu/conv2d_grouped_weight_grad.h"
#include "backends/cpu/conv2d_lanes.h"
#include "backends/cpu/conv2d_reference.h"
#include "backends/cpu/conv2d_row_pair_grad.h"
#include "backends/cpu/conv2d_scatter.h"
#include "backends/cpu/conv2d_strassen.h"
#include "backends/cpu/conv2d_strassen_weight_grad.h"
#include "backends/cpu/conv2d_tap_row_grad.h"
#include "backends/cpu/conv2d_weight_grad.h"
#include "backends/cpu/conv2d_window.h"
#include "backends/cpu/conv2d_winograd.h"
#include "backends/cpu/conv2d_winograd_bfloat16.h"
#include "backends/cpu/conv2d_winograd_bfloat16_weight_grad.h"
#include "backends/cpu/conv2d_winograd_group_grad.h"
#include "backends/cpu/conv2d_winograd_groups.h"
#include "backends/cpu/conv2d_winograd_weight_grad.h"
#include "backends/cpu/select.h"
#include "backends/cpu/variant.h"
#include "backends/cpu/widened.h"
#include "core/cpu_features.h"

namespace pycnn::cpu {
namespace {

WindowProblem window_of(const ops::Conv2d& op, const Problem& problem) {
  const Shape& weight = problem.inputs[1].shape;
  WindowProblem window;
  window.input = problem.inputs[0].shape, window.output = problem.outputs[0].shape;
  window.groups = op.groups;
  window.kernel_size = {weight[1], weight[2]};
  window.stride = op.stride, window.dilation = op.dilation;
  window.padding = {op.padding.top, op.padding.left};
  window.epilogue = op.epilogue;
  if (op.epilogue.moments) window.measure = MeasureKind::kMoments;
  window.bias = problem.inputs.size() > (op.epilogue.residual ? 3u : 2u);
  return window;
}

WindowProblem window_of(const ops::Conv2dGradInput& op, const Problem& problem) {
  const Shape& weight = problem.inputs[1].shape;
  WindowProblem window;
  window.input = problem.inputs[0].shape, window.output = problem.outputs[0].shape;
  window.groups = op.groups;
  window.kernel_size = {weight[1], weight[2]};
  window.stride = op.stride, window.dilation = op.dilation;
  window.padding = {op.padding.top, op.padding.left};
  window.transposed = true;
  window.epilogue.residual = op.finish.residual;
  window.mask = op.finish.relu;
  if (op.sums.wanted) window.measure = MeasureKind::kSums;
  return window;
}

bool is_measured(const ops::Conv2d& op) { return op.epilogue.moments; }
bool is_measured(const ops::Conv2dGradInput& op) { return op.sums.wanted; }

bool is_finished(const ops::Conv2dGradInput& op) { return op.finish != GradientEpilogue{}; }
bool is_finished(const ops::Conv2d&) { return false; }
// Of kernels without an epilogue for gradients; asked last, since it is no reason of the shapes.
const char* refuse_finished(const auto& op) {
  return is_finished(op) ? "gradients are not finished here" : nullptr;
}

const char* refuse_finish(const ops::Conv2dGradWeight&, const Problem&) { return nullptr; }
// Why the tiles of a gradient cannot end with its epilogue, or null.
const char* refuse_finish(const auto& op, const Problem& problem) {
  if (!is_finished(op) || !has_gaps(window_of(op, problem))) return nullptr;
  return "a finished gradient has pixels without a tap";
}

const char* accept_window(const auto& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  return refuse_finish(op, problem);
}

template <const WindowRun& kRun>
Kernel make_window(const auto& op, const Problem& problem) {
  return make_window_kernel(window_of(op, problem), problem.threads, kRun);
}

const char* accept_winograd(const auto& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  if (!problem.winograd) return kWinogradIsOff;
  return refuse_winograd(window_of(op, problem));
}

template <const WinogradRun& kRun>
Kernel make_winograd(const auto& op, const Problem& problem) {
  return make_winograd_kernel(window_of(op, problem), problem.threads, kRun);
}

template <const WinogradGroupRun& kRun>
const char* accept_winograd_groups(const auto& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  if (!problem.winograd) return kWinogradIsOff;
  return refuse_winograd_groups(window_of(op, problem), kRun.lanes);
}

template <const WinogradGroupRun& kRun>
Kernel make_winograd_groups(const auto& op, const Problem& problem) {
  return make_winograd_group_kernel(window_of(op, problem), problem.threads, kRun);
}

#if PYCNN_HAVE_AVX512
// What Strassen's algorithm saves, its sums and larger weights take again where cores multiply fast
// beside what their caches give, and more with few images. (Not so of gradients of weights.)
// PYCNN_STRASSEN=1 or 0 decides in place of the processor.
const char* refuse_fast_multipliers(const Problem& problem) {
  const char* const variable = std::getenv("PYCNN_STRASSEN");
  const std::string_view wish = variable != nullptr ? variable : "";
  const bool pays = wish == "1" || (wish != "0" && multiplies_512_bits_in_halves());
  if (pays || !problem.pinned.empty()) return nullptr;
  if (wish == "0") return "PYCNN_STRASSEN is 0";
  return "plain sums are as fast on cores that multiply 512 bits at once";
}

const char* accept_strassen(const auto& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  if (!problem.winograd) return kWinogradIsOff;
  if (const char* refused = refuse_fast_multipliers(problem)) return refused;
  if (const char* refused = refuse_finish(op, problem)) return refused;
  const WindowProblem window = window_of(op, problem);
  if (window.measure != MeasureKind::kNothing && window.transposed && window.stride != Pair{1, 1})
    return "sums of pixels that lie apart are not taken here";
  return refuse_strassen(window);
}

Kernel make_strassen(const auto& op, const Problem& problem) {
  Kernel kernel = make_strassen_kernel(window_of(op, problem), problem.threads);
  if (!problem.pinned.empty()) kernel.absorb = nullptr;
  return kernel;
}
#endif

template <const LaneRun& kRun>
const char* accept_lanes(const auto& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  if (const char* refused = refuse_lanes(window_of(op, problem), kRun.lanes)) return refused;
  return refuse_finished(op);
}

template <const LaneRun& kRun>
Kernel make_lanes(const auto& op, const Problem& problem) {
  return make_lane_kernel(window_of(op, problem), problem.threads, kRun);
}

template <const GroupRunner& kRun>
const char* accept_grouped(const auto& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  if (const char* refused = refuse_grouped(window_of(op, problem), kRun)) return refused;
  return refuse_finished(op);
}

template <const GroupRunner& kRun>
Kernel make_grouped(const auto& op, const Problem& problem) {
  return make_grouped_kernel(window_of(op, problem), problem.threads, kRun);
}

template <const ScatterRun& kRun>
const char* accept_scatter(const ops::Conv2dGradInput& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  if (const char* refused = refuse_scatter(op, problem, kRun.lanes)) return refused;
  if (op.sums.wanted) return "sums are not taken here";
  return refuse_finished(op);
}

template <const ScatterRun& kRun>
Kernel make_scatter(const ops::Conv2dGradInput& op, const Problem& problem) {
  return make_scatter_kernel(op, problem, kRun);
}

WeightGradProblem problem_of(const ops::Conv2dGradWeight& op, const Problem& problem) {
  WeightGradProblem grad;
  grad.input = problem.inputs[0].shape, grad.grad_output = problem.inputs[1].shape;
  grad.groups = op.groups;
  grad.kernel_size = op.kernel_size;
  grad.stride = op.stride, grad.dilation = op.dilation;
  grad.padding = {op.padding.top, op.padding.left};
  grad.bias = op.bias;
  return grad;
}

template <const WeightGradRun& kRun, bool kPerThread = false>
Kernel make_grad_weight(const ops::Conv2dGradWeight& op, const Problem& problem) {
  WeightGradProblem grad = problem_of(op, problem);
  grad.per_thread = kPerThread;
  return make_weight_grad_kernel(grad, problem.threads, kRun);
}

const char* accept_winograd_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  if (!problem.winograd) return kWinogradIsOff;
  return refuse_winograd(problem_of(op, problem));
}

template <const WinogradGradRun& kRun>
Kernel make_winograd_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  return make_winograd_weight_grad_kernel(problem_of(op, problem), kRun);
}

template <const WinogradGroupGradRun& kRun>
const char* accept_winograd_group_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  if (!problem.winograd) return kWinogradIsOff;
  return refuse_winograd_groups(problem_of(op, problem), kRun.lanes);
}

template <const WinogradGroupGradRun& kRun>
Kernel make_winograd_group_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  return make_winograd_group_grad_kernel(problem_of(op, problem), problem.threads, kRun);
}

#if PYCNN_HAVE_AVX512
const char* accept_strassen_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  if (!problem.winograd) return kWinogradIsOff;
  return refuse_strassen(problem_of(op, problem));
}

Kernel make_strassen_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  return make_strassen_weight_grad_kernel(problem_of(op, problem), problem.threads);
}
#endif

template <const GroupGradRun& kRun>
const char* accept_grouped_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  return refuse_grouped(problem_of(op, problem), kRun.lanes);
}

template <const GroupGradRun& kRun>
Kernel make_grouped_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  return make_grouped_weight_grad_kernel(problem_of(op, problem), problem.threads, kRun);
}

// ---- bfloat16

[[maybe_unused]] const char* accept_amx(const auto& op, const Problem& problem) {
  if (const char* refused = refuse_amx()) return refused;
  return refuse_finish(op, problem);
}

const char* accept_portable(const auto& op, const Problem& problem) {
  if (const char* refused = refuse_portable(problem)) return refused;
  return refuse_finish(op, problem);
}

// Where AVX512_BF16 multiplies blocks of channels that are mostly filled up with zeros, float32's
// kernels are quicker. (Not so for AMX, which is 16 times as fast as float32.)
const char* accept_avx512_bf16(const auto& op, const Problem& problem) {
  constexpr Index kLeastOfGroup = kPairBlock / 4, kLeastResults = kPairBlock / 2;
  if (op.groups > 1 && problem.inputs[0].shape[3] / op.groups < kLeastOfGroup)
    return "groups fill less than a quarter of a block of channels";
  if (problem.outputs[0].shape[3] < kLeastResults)
    return "results fill less than half of a block of channels";
  if (const char* refused = refuse_finish(op, problem)) return refused;
  return refuse_avx512_bf16();
}

// The sums of a row of taps lie side by side.
[[maybe_unused]] const char* accept_grad_avx512_bf16(const ops::Conv2dGradWeight& op,
                                                     const Problem& problem) {
  constexpr Index kLeastOfGroup = kPairBlock / 2, kLeastOfRow = kPairBlock / 2;
  if (op.groups > 1 && problem.inputs[0].shape[3] / op.groups < kLeastOfGroup)
    return "groups fill less than half of a block of channels";
  if (op.kernel_size[1] * problem.inputs[0].shape[3] < kLeastOfRow)
    return "a row of taps fills less than half of a block of channels";
  return refuse_avx512_bf16();
}

template <const PairRun& kRun>
Kernel make_pairs(const auto& op, const Problem& problem) {
  return make_pair_kernel(window_of(op, problem), problem.threads, kRun);
}

const char* accept_pair_tiles(const auto& op, const Problem& problem) {
  if (!problem.winograd) return kWinogradIsOff;
  return refuse_pair_tiles(window_of(op, problem));
}

const char* accept_portable_tiles(const auto& op, const Problem& problem) {
  if (const char* refused = refuse_portable(problem)) return refused;
  return accept_pair_tiles(op, problem);
}

[[maybe_unused]] const char* accept_avx512_bf16_tiles(const auto& op, const Problem& problem) {
  if (const char* refused = refuse_avx512_bf16()) return refused;
  return accept_pair_tiles(op, problem);
}

const char* accept_portable_groups(const auto& op, const Problem& problem) {
  if (const char* refused = refuse_portable(problem)) return refused;
  if (const char* refused = refuse_grouped_pairs(window_of(op, problem))) return refused;
  return refuse_finished(op);
}

// Groups that fill blocks of channels are as good as convolutions.
[[maybe_unused]] const char* accept_avx512_bf16_groups(const auto& op, const Problem& problem) {
  if (const char* refused = refuse_avx512_bf16()) return refused;
  const WindowProblem window = window_of(op, problem);
  const Index most = window.transposed ? kPairBlock / 2 : kPairBlock;
  if (window.input[3] / window.groups > most) return "groups fill blocks of channels";
  if (const char* refused = refuse_grouped_pairs(window)) return refused;
  return refuse_finished(op);
}

template <const PairTileRun& kRun>
Kernel make_pair_tiles(const auto& op, const Problem& problem) {
  return make_pair_tile_kernel(window_of(op, problem), problem.threads, kRun);
}

const char* accept_pair_tile_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (!problem.winograd) return kWinogradIsOff;
  return refuse_pair_tiles(problem_of(op, problem));
}

const char* accept_portable_tile_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* refused = refuse_portable(problem)) return refused;
  return accept_pair_tile_grad(op, problem);
}

[[maybe_unused]] const char* accept_avx512_bf16_tile_grad(const ops::Conv2dGradWeight& op,
                                                          const Problem& problem) {
  if (const char* refused = refuse_avx512_bf16()) return refused;
  return accept_pair_tile_grad(op, problem);
}

template <const KernelFunction& kRun>
Kernel make_pair_tile_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  return make_pair_tile_weight_grad_kernel(problem_of(op, problem), kRun);
}

const char* accept_portable_group_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* refused = refuse_portable(problem)) return refused;
  return refuse_group_pair_grad(problem_of(op, problem));
}

[[maybe_unused]] const char* accept_avx512_bf16_group_grad(const ops::Conv2dGradWeight& op,
                                                           const Problem& problem) {
  constexpr Index kManyChannels = 512;
  if (const char* refused = refuse_avx512_bf16()) return refused;
  const Index channels = problem.inputs[0].shape[3];
  if (channels < kManyChannels && channels / op.groups == kPairBlock)
    return "few groups fill whole blocks of channels";
  return refuse_group_pair_grad(problem_of(op, problem));
}

template <const KernelFunction& kRun>
Kernel make_group_pair_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  return make_group_pair_grad_kernel(problem_of(op, problem), problem.threads, kRun);
}

const char* accept_portable_row_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* refused = refuse_portable(problem)) return refused;
  return refuse_row_pair_grad(problem_of(op, problem));
}

[[maybe_unused]] const char* accept_avx512_bf16_row_grad(const ops::Conv2dGradWeight& op,
                                                         const Problem& problem) {
  constexpr Index kLeastResults = kPairBlock / 2;
  if (const char* refused = refuse_avx512_bf16()) return refused;
  if (problem.inputs[1].shape[3] < kLeastResults)
    return "output channels fill less than half of a block";
  return refuse_row_pair_grad(problem_of(op, problem));
}

template <const KernelFunction& kRun>
Kernel make_row_pair_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  return make_row_pair_grad_kernel(problem_of(op, problem), problem.threads, kRun);
}

const char* accept_portable_tap_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (const char* refused = refuse_portable(problem)) return refused;
  return refuse_tap_row_grad(problem_of(op, problem));
}

[[maybe_unused]] const char* accept_amx_tap_grad(const ops::Conv2dGradWeight& op,
                                                 const Problem& problem) {
  constexpr Index kLeastColumns = kPairStep / 2;
  if (const char* refused = refuse_amx()) return refused;
  if (problem.inputs[1].shape[2] < kLeastColumns) return "rows fill less than half of a step";
  return refuse_tap_row_grad(problem_of(op, problem));
}

template <const KernelFunction& kRun>
Kernel make_tap_row_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  return make_tap_row_grad_kernel(problem_of(op, problem), problem.threads, kRun);
}

template <const PairGradRun& kRun>
Kernel make_pair_grad(const ops::Conv2dGradWeight& op, const Problem& problem) {
  return make_pair_weight_grad_kernel(problem_of(op, problem), problem.threads, kRun);
}

constexpr Variant<ops::Conv2d> kForward[] = {
#if PYCNN_HAVE_AVX512
    {"conv2d.bfloat16.amx", Isa::kAvx512, accept_amx, make_pairs<kPairsAmx>, Images::kBFloat16},
    {"conv2d.bfloat16.winograd.avx512_bf16", Isa::kAvx512, accept_avx512_bf16_tiles,
     make_pair_tiles<kPairTilesAvx512>, Images::kBFloat16},
    {"conv2d.bfloat16.grouped.avx512_bf16", Isa::kAvx512, accept_avx512_bf16_groups,
     make_grouped<kGroupedPairsAvx512>, Images::kBFloat16},
    {"conv2d.bfloat16.avx512_bf16", Isa::kAvx512, accept_avx512_bf16, make_pairs<kPairsAvx512>,
     Images::kBFloat16},
    {"conv2d.winograd.avx512", Isa::kAvx512, accept_winograd, make_winograd<kWinogradAvx512>},
    {"conv2d.strassen.avx512", Isa::kAvx512, accept_strassen, make_strassen},
    {"conv2d.grouped.winograd.avx512", Isa::kAvx512, accept_winograd_groups<kWinogradGroupsAvx512>,
     make_winograd_groups<kWinogradGroupsAvx512>},
#endif
#if PYCNN_HAVE_AVX2  // before AVX-512's plain sums: groups of 8 channels are one of its vectors
    {"conv2d.grouped.winograd.avx2", Isa::kAvx2, accept_winograd_groups<kWinogradGroupsAvx2>,
     make_winograd_groups<kWinogradGroupsAvx2>},
#endif
#if PYCNN_HAVE_AVX512
    {"conv2d.grouped.avx512", Isa::kAvx512, accept_grouped<kGroupedAvx512>,
     make_grouped<kGroupedAvx512>},
    {"conv2d.lanes.avx512", Isa::kAvx512, accept_lanes<kLanesAvx512>, make_lanes<kLanesAvx512>},
    {"conv2d.implicit_gemm.avx512", Isa::kAvx512, accept_float32, make_window<kWindowAvx512>},
#endif
#if PYCNN_HAVE_AVX2
    {"conv2d.winograd.avx2", Isa::kAvx2, accept_winograd, make_winograd<kWinogradAvx2>},
    {"conv2d.grouped.avx2", Isa::kAvx2, accept_grouped<kGroupedAvx2>, make_grouped<kGroupedAvx2>},
    {"conv2d.lanes.avx2", Isa::kAvx2, accept_lanes<kLanesAvx2>, make_lanes<kLanesAvx2>},
    {"conv2d.implicit_gemm.avx2", Isa::kAvx2, accept_float32, make_window<kWindowAvx2>},
#endif
    {"conv2d.winograd.baseline", Isa::kBaseline, accept_winograd, make_winograd<kWinogradBaseline>},
    {"conv2d.grouped.winograd.baseline", Isa::kBaseline,
     accept_winograd_groups<kWinogradGroupsBaseline>,
     make_winograd_groups<kWinogradGroupsBaseline>},
    {"conv2d.grouped.baseline", Isa::kBaseline, accept_grouped<kGroupedBaseline>,
     make_grouped<kGroupedBaseline>},
    {"conv2d.lanes.baseline", Isa::kBaseline, accept_lanes<kLanesBaseline>,
     make_lanes<kLanesBaseline>},
    {"conv2d.implicit_gemm.baseline", Isa::kBaseline, accept_float32, make_window<kWindowBaseline>},
    {"conv2d.bfloat16.winograd.portable", Isa::kBaseline, accept_portable_tiles,
     make_pair_tiles<kPairTilesPortable>, Images::kBFloat16},
    {"conv2d.bfloat16.grouped.portable", Isa::kBaseline, accept_portable_groups,
     make_grouped<kGroupedPairsPortable>, Images::kBFloat16},
    {"conv2d.bfloat16.portable", Isa::kBaseline, accept_portable, make_pairs<kPairsPortable>,
     Images::kBFloat16},
    {"conv2d.reference", Isa::kBaseline, accept_all, make_conv2d_reference},
};

constexpr Variant<ops::Conv2dGradInput> kGradInput[] = {
#if PYCNN_HAVE_AVX512
    {"conv2d_grad_input.bfloat16.amx", Isa::kAvx512, accept_amx, make_pairs<kPairsAmx>,
     Images::kBFloat16},
    {"conv2d_grad_input.bfloat16.winograd.avx512_bf16", Isa::kAvx512, accept_avx512_bf16_tiles,
     make_pair_tiles<kPairTilesAvx512>, Images::kBFloat16},
    {"conv2d_grad_input.bfloat16.grouped.avx512_bf16", Isa::kAvx512, accept_avx512_bf16_groups,
     make_grouped<kGroupedPairsAvx512>, Images::kBFloat16},
    {"conv2d_grad_input.bfloat16.avx512_bf16", Isa::kAvx512, accept_avx512_bf16,
     make_pairs<kPairsAvx512>, Images::kBFloat16},
    {"conv2d_grad_input.winograd.avx512", Isa::kAvx512, accept_winograd,
     make_winograd<kWinogradAvx512>},
    {"conv2d_grad_input.strassen.avx512", Isa::kAvx512, accept_strassen, make_strassen},
    {"conv2d_grad_input.grouped.winograd.avx512", Isa::kAvx512,
     accept_winograd_groups<kWinogradGroupsAvx512>, make_winograd_groups<kWinogradGroupsAvx512>},
#endif
#if PYCNN_HAVE_AVX2  // before AVX-512's plain sums: groups of 8 channels are one of its vectors
    {"conv2d_grad_input.grouped.winograd.avx2", Isa::kAvx2,
     accept_winograd_groups<kWinogradGroupsAvx2>, make_winograd_groups<kWinogradGroupsAvx2>},
#endif
#if PYCNN_HAVE_AVX512
    {"conv2d_grad_input.grouped.avx512", Isa::kAvx512, accept_grouped<kGroupedAvx512>,
     make_grouped<kGroupedAvx512>},
    {"conv2d_grad_input.lanes.avx512", Isa::kAvx512, accept_lanes<kLanesAvx512>,
     make_lanes<kLanesAvx512>},
    {"conv2d_grad_input.scatter.avx512", Isa::kAvx512, accept_scatter<kScatterAvx512>,
     make_scatter<kScatterAvx512>},
    {"conv2d_grad_input.implicit_gemm.avx512", Isa::kAvx512, accept_window,
     make_window<kWindowAvx512>},
#endif
#if PYCNN_HAVE_AVX2
    {"conv2d_grad_input.winograd.avx2", Isa::kAvx2, accept_winograd, make_winograd<kWinogradAvx2>},
    {"conv2d_grad_input.grouped.avx2", Isa::kAvx2, accept_grouped<kGroupedAvx2>,
     make_grouped<kGroupedAvx2>},
    {"conv2d_grad_input.lanes.avx2", Isa::kAvx2, accept_lanes<kLanesAvx2>, make_lanes<kLanesAvx2>},
    {"conv2d_grad_input.scatter.avx2", Isa::kAvx2, accept_scatter<kScatterAvx2>,
     make_scatter<kScatterAvx2>},
    {"conv2d_grad_input.implicit_gemm.avx2", Isa::kAvx2, accept_window, make_window<kWindowAvx2>},
#endif
    {"conv2d_grad_input.winograd.baseline", Isa::kBaseline, accept_winograd,
     make_winograd<kWinogradBaseline>},
    {"conv2d_grad_input.grouped.winograd.baseline", Isa::kBaseline,
     accept_winograd_groups<kWinogradGroupsBaseline>,
     make_winograd_groups<kWinogradGroupsBaseline>},
    {"conv2d_grad_input.grouped.baseline", Isa::kBaseline, accept_grouped<kGroupedBaseline>,
     make_grouped<kGroupedBaseline>},
    {"conv2d_grad_input.lanes.baseline", Isa::kBaseline, accept_lanes<kLanesBaseline>,
     make_lanes<kLanesBaseline>},
    {"conv2d_grad_input.scatter.baseline", Isa::kBaseline, accept_scatter<kScatterBaseline>,
     make_scatter<kScatterBaseline>},
    {"conv2d_grad_input.implicit_gemm.baseline", Isa::kBaseline, accept_window,
     make_window<kWindowBaseline>},
    {"conv2d_grad_input.bfloat16.winograd.portable", Isa::kBaseline, accept_portable_tiles,
     make_pair_tiles<kPairTilesPortable>, Images::kBFloat16},
    {"conv2d_grad_input.bfloat16.grouped.portable", Isa::kBaseline, accept_portable_groups,
     make_grouped<kGroupedPairsPortable>, Images::kBFloat16},
    {"conv2d_grad_input.bfloat16.portable", Isa::kBaseline, accept_portable,
     make_pairs<kPairsPortable>, Images::kBFloat16},
    {"conv2d_grad_input.reference", Isa::kBaseline, accept_all, make_conv2d_grad_input_reference},
};

constexpr Variant<ops::Conv2dGradWeight> kGradWeight[] = {
#if PYCNN_HAVE_AVX512
    {"conv2d_grad_weight.bfloat16.taps.amx", Isa::kAvx512, accept_amx_tap_grad,
     make_tap_row_grad<kTapRowGradAmx>, Images::kBFloat16},
    {"conv2d_grad_weight.bfloat16.amx", Isa::kAvx512, accept_amx, make_pair_grad<kPairGradAmx>,
     Images::kBFloat16},
    {"conv2d_grad_weight.bfloat16.winograd.avx512_bf16", Isa::kAvx512, accept_avx512_bf16_tile_grad,
     make_pair_tile_grad<kPairTileGradAvx512>, Images::kBFloat16},
    {"conv2d_grad_weight.bfloat16.grouped.avx512_bf16", Isa::kAvx512, accept_avx512_bf16_group_grad,
     make_group_pair_grad<kGroupPairGradAvx512>, Images::kBFloat16},
    {"conv2d_grad_weight.bfloat16.rows.avx512_bf16", Isa::kAvx512, accept_avx512_bf16_row_grad,
     make_row_pair_grad<kRowPairGradAvx512>, Images::kBFloat16},
    {"conv2d_grad_weight.bfloat16.avx512_bf16", Isa::kAvx512, accept_grad_avx512_bf16,
     make_pair_grad<kPairGradAvx512>, Images::kBFloat16},
    {"conv2d_grad_weight.winograd.avx512", Isa::kAvx512, accept_winograd_grad,
     make_winograd_grad<kWinogradGradAvx512>},
    {"conv2d_grad_weight.grouped.winograd.avx512", Isa::kAvx512,
     accept_winograd_group_grad<kWinogradGroupGradAvx512>,
     make_winograd_group_grad<kWinogradGroupGradAvx512>},
#endif
#if PYCNN_HAVE_AVX2
    {"conv2d_grad_weight.grouped.winograd.avx2", Isa::kAvx2,
     accept_winograd_group_grad<kWinogradGroupGradAvx2>,
     make_winograd_group_grad<kWinogradGroupGradAvx2>},
#endif
#if PYCNN_HAVE_AVX512
    {"conv2d_grad_weight.grouped.avx512", Isa::kAvx512, accept_grouped_grad<kGroupGradAvx512>,
     make_grouped_grad<kGroupGradAvx512>},
    {"conv2d_grad_weight.strassen.avx512", Isa::kAvx512, accept_strassen_grad, make_strassen_grad},
    {"conv2d_grad_weight.implicit_gemm.avx512", Isa::kAvx512, accept_float32,
     make_grad_weight<kWeightGradAvx512>},
#endif
#if PYCNN_HAVE_AVX2
    {"conv2d_grad_weight.winograd.avx2", Isa::kAvx2, accept_winograd_grad,
     make_winograd_grad<kWinogradGradAvx2>},
    {"conv2d_grad_weight.grouped.avx2", Isa::kAvx2, accept_grouped_grad<kGroupGradAvx2>,
     make_grouped_grad<kGroupGradAvx2>},
    {"conv2d_grad_weight.implicit_gemm.avx2", Isa::kAvx2, accept_float32,
     make_grad_weight<kWeightGradAvx2>},
#endif
    {"conv2d_grad_weight.winograd.baseline", Isa::kBaseline, accept_winograd_grad,
     make_winograd_grad<kWinogradGradBaseline>},
    {"conv2d_grad_weight.grouped.winograd.baseline", Isa::kBaseline,
     accept_winograd_group_grad<kWinogradGroupGradBaseline>,
     make_winograd_group_grad<kWinogradGroupGradBaseline>},
    {"conv2d_grad_weight.grouped.baseline", Isa::kBaseline, accept_grouped_grad<kGroupGradBaseline>,
     make_grouped_grad<kGroupGradBaseline>},
    {"conv2d_grad_weight.implicit_gemm.baseline", Isa::kBaseline, accept_float32,
     make_grad_weight<kWeightGradBaseline>},
    {"conv2d_grad_weight.bfloat16.winograd.portable", Isa::kBaseline, accept_portable_tile_grad,
     make_pair_tile_grad<kPairTileGradPortable>, Images::kBFloat16},
    {"conv2d_grad_weight.bfloat16.grouped.portable", Isa::kBaseline, accept_portable_group_grad,
     make_group_pair_grad<kGroupPairGradPortable>, Images::kBFloat16},
    {"conv2d_grad_weight.bfloat16.taps.portable", Isa::kBaseline, accept_portable_tap_grad,
     make_tap_row_grad<kTapRowGradPortable>, Images::kBFloat16},
    {"conv2d_grad_weight.bfloat16.rows.portable", Isa::kBaseline, accept_portable_row_grad,
     make_row_pair_grad<kRowPairGradPortable>, Images::kBFloat16},
    {"conv2d_grad_weight.bfloat16.portable", Isa::kBaseline, accept_portable,
     make_pair_grad<kPairGradPortable>, Images::kBFloat16},
    {"conv2d_grad_weight.reference", Isa::kBaseline, accept_all, make_conv2d_grad_weight_reference},
};

// Reached by a pin alone and in no list: see WeightGradProblem::per_thread.
constexpr Variant<ops::Conv2dGradWeight> kGradWeightPerThread[] = {
#if PYCNN_HAVE_AVX512
    {"conv2d_grad_weight.per_thread.avx512", Isa::kAvx512, accept_float32,
     make_grad_weight<kWeightGradAvx512, true>},
#endif
#if PYCNN_HAVE_AVX2
    {"conv2d_grad_weight.per_thread.avx2", Isa::kAvx2, accept_float32,
     make_grad_weight<kWeightGradAvx2, true>},
#endif
    {"conv2d_grad_weight.per_thread.baseline", Isa::kBaseline, accept_float32,
     make_grad_weight<kWeightGradBaseline, true>},
};

constexpr Variant<ops::Conv2d> kForwardReference[] = {
    {"conv2d.reference", Isa::kBaseline, accept_all, make_conv2d_reference}};
constexpr Variant<ops::Conv2dGradInput> kGradInputReference[] = {
    {"conv2d_grad_input.reference", Isa::kBaseline, accept_all, make_conv2d_grad_input_reference}};

// A float32 kernel on widened images would measure what is not rounded yet.
template <class OpType, std::size_t Count>
Selection choose_measured(const Variant<OpType> (&list)[Count],
                          const Variant<OpType> (&reference)[1], const OpType& op,
                          const Problem& problem) {
  Selection selection = choose(list, op, problem);
  const bool widened = std::string_view(selection.kernel.variant).ends_with(kWidenedSuffix);
  return widened && is_measured(op) ? choose(reference, op, problem) : selection;
}

}  // namespace

Selection select(const ops::Conv2d& op, const Problem& problem) {
  return choose_measured(kForward, kForwardReference, op, problem);
}
std::vector<std::string> variants(const ops::Conv2d&) { return names_of(kForward); }
Selection select(const ops::Conv2dGradInput& op, const Problem& problem) {
  return choose_measured(kGradInput, kGradInputReference, op, problem);
}
std::vector<std::string> variants(const ops::Conv2dGradInput&) { return names_of(kGradInput); }
Selection select(const ops::Conv2dGradWeight& op, const Problem& problem) {
  if (problem.pinned.starts_with("conv2d_grad_weight.per_thread"))
    return choose(kGradWeightPerThread, op, problem);
  return choose(kGradWeight, op, problem);
}
std::vector<std::string> variants(const ops::Conv2dGradWeight&) { return names_of(kGradWeight); }

}  // namespace pycnn::cpu
