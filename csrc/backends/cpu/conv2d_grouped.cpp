#include "backends/cpu/conv2d_grouped.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "backends/cpu/conv2d_grouped_rows.h"
#include "backends/cpu/conv2d_window_plan.h"
#include "core/half.h"
#include "core/parallel.h"

namespace pycnn::cpu {

struct GroupKernels {
  Index lanes;
  bool pick_lanes;
  void (*tiles)(const GroupTiles&);
  void (*pair_tiles)(const GroupPairTiles&);  // of bfloat16 images; one of the two is null
  void (*copy)(const GroupRow&);
  const ActivationFunctions* activation;
  MeasureFunctions norm;
  const char* format;
  const char* transposed_format;
};

namespace {

constexpr Index kMaxGroup = 64;           // channels; wider groups are as good as convolutions
constexpr Index kMinDepthwise = 16;       // columns
constexpr Index kNearWeights = 4 * 1024;  // floats that leave room for input rows in L1
constexpr Index kAllWeights = 80 * 1024;  // floats that leave room for rows of all groups in L2

Index weight_floats(const WindowProblem& w) {
  return w.output[3] * (w.input[3] / w.groups) * w.kernel_size[0] * w.kernel_size[1];
}

Lanes choose_lanes(const WindowProblem& w, const GroupKernels& kernels) {
  const Index outputs = w.output[3] / w.groups, inputs = w.input[3] / w.groups;
  const GroupVectors vectors{kernels.lanes, outputs};
  Lanes result;
  result.used = result.grouped = true;
  result.shared = vectors.shared();
  result.planes = vectors.shared() && !kernels.pick_lanes;
  result.pattern = vectors.count(w.output[3]) * kernels.lanes;
  // Rows of all groups are read in one go where no block ends within a group.
  if (!result.planes && weight_floats(w) <= kAllWeights &&
      (kInputBlock % inputs == 0 || inputs % kInputBlock == 0))
    result.width = w.output[3];
  else
    result.width = std::min(
        w.output[3], (result.planes ? kernels.lanes / outputs : groups_of_block(inputs)) * outputs);
  return result;
}

GroupVectors vectors_of(const WindowPlan& plan) {
  return {plan.block_width / 2, plan.group_channels};
}

const GroupRun* runs_of(const WindowPlan& plan, const Pass& pass) {
  return reinterpret_cast<const GroupRun*>(plan.offsets() + pass.tap);
}

// The steps in the weight, of whose channels the plan may have pairs.
template <class T>
WeightLayout layout_of(const WindowPlan& plan) {
  if constexpr (std::is_same_v<T, float>) return weight_layout(plan);
  WindowPlan whole = plan;
  whole.in_channels *= 2;
  return weight_layout(whole);
}

// Channel k, or pair of channels, of a lane's weights.
template <class T>
float unit_at(const float* from, Index k, Index read_pitch) {
  if constexpr (std::is_same_v<T, float>) return from[k * read_pitch];
  from += 2 * k * read_pitch;
  const std::uint32_t low = bfloat16_from_float(from[0]);
  return std::bit_cast<float>(low | std::uint32_t{bfloat16_from_float(from[read_pitch])} << 16);
}

// [vector][run][channel][tap][lane]
template <class T>
void pack_weights(const KernelArgs& args) noexcept {
  const WindowPlan& plan = *reinterpret_cast<const WindowPlan*>(args.plan);
  const float* weight = args.inputs[0].as<const float>();
  const WeightLayout layout = layout_of<T>(plan);
  const GroupVectors vectors = vectors_of(plan);
  const Index count = vectors.count(plan.out_channels);
  auto pack_vector = [&](std::int64_t item, int) {
    const Pass& pass = plan.passes()[item / count];
    const Index v = item % count;
    const Index first = vectors.first(v), valid = vectors.valid(v, plan.out_channels);
    float* to = args.outputs[0].as<float>() + pass.weights +
                v * plan.in_channels * pass.kernel_taps * vectors.lanes;
    const KernelTap* taps = plan.kernel_taps() + pass.kernel_tap;
    Index channel = 0;
    for (Index r = 0; r < pass.taps / kGroupRunIndices; ++r) {
      const GroupRun& run = runs_of(plan, pass)[r];
      for (Index k = channel; k < channel + run.channels; ++k)
        for (Index t = 0; t < run.taps; ++t) {
          const float* from =
              weight + (taps[t].row * plan.kernel_size[1] + taps[t].column) * layout.tap_pitch;
          for (Index lane = 0; lane < vectors.lanes; ++lane) {
            const Index o = first + lane;
            const Index at =
                o / vectors.group * layout.group_pitch + o % vectors.group * layout.write_pitch;
            // By its bits: a pair may look like a NaN that signals.
            const float x = lane < valid ? unit_at<T>(from + at, k, layout.read_pitch) : 0.0f;
            std::memcpy(to++, &x, sizeof x);
          }
        }
      channel += run.channels;
      if (channel == plan.in_channels) channel = 0, taps += run.taps;
    }
  };
  parallel_for(args.threads, plan.pass_count * count, pack_vector);
}

// Output channels whose input rows are copied together, and the vectors that hold them.
struct Slice {
  Index first_group, groups;
  Index vector, vector_end;
};

Slice slice_at(const WindowPlan& plan, const GroupVectors& vectors, Index block) {
  Slice slice;
  const Index first = block * plan.lanes.width;
  const Index end = std::min(first + plan.lanes.width, plan.out_channels);
  slice.first_group = first / vectors.group;
  slice.groups = (end - first) / vectors.group;
  slice.vector = vectors.count(first), slice.vector_end = vectors.count(end);
  return slice;
}

template <class T>
struct GroupTensors {
  const float* input;  // of bfloat16, pairs
  const float* weights;
  const float* bias;
  const T* residual;
  T* output;
};

// One slice of a chunk.
template <class T>
struct Work {
  const WindowPlan& plan;
  const GroupKernels& kernels;
  const GroupTensors<T>& tensors;
  const WindowChunk& chunk;
  GroupVectors vectors;
  Slice slice;
  float* buffer;
  Index next;  // the chunk that this worker will probably take then

  float* image_buffer(Index n) const { return buffer + n * plan.in.buffer_floats(plan.row_block); }
};

// Rows [first, end) of the copy of image n of the chunk.
template <class T>
void copy_rows(const Work<T>& work, Index n, Index first, Index end) {
  const WindowPlan& plan = work.plan;
  GroupRows rows;
  rows.image = work.tensors.input + (work.chunk.image + n) * plan.input_image;
  rows.buffer = work.image_buffer(n);
  rows.output_row = work.chunk.row;
  rows.first_channel = work.slice.first_group * plan.in_channels;
  rows.plane_pitch = plan.lanes.plane_pitch;
  rows.group = plan.lanes.planes ? plan.in_channels : 0;
  copy_group_rows(plan.in, rows, first, end, work.kernels.copy);
}

// What the next row will read and write, in runs of whole image rows.
struct RowFetch {
  FloatRange input, output;
};

FloatRange image_rows(const float* image, Index row_floats, Index first, Index end, Index height) {
  first = std::clamp<Index>(first, 0, height), end = std::clamp<Index>(end, first, height);
  return {image + first * row_floats, (end - first) * row_floats};
}

// Part i of so many.
FloatRange part_of(const FloatRange& range, Index i, Index parts) {
  const Index first = range.count * i / parts;
  return {range.from + first, range.count * (i + 1) / parts - first};
}

// Rows [first, end) of the copy of an image, as they lie in the image, and row `output_row` of the
// passes.
template <class T>
RowFetch fetch_of(const WindowPlan& plan, const GroupTensors<T>& tensors, Index image,
                  Index first_row, Index first, Index end, Index output_row) {
  const ConvInput& in = plan.in;
  const Index row = first_row * in.stride[0] + in.first_row;
  constexpr Index kUnit = sizeof(float) / sizeof(T);  // elements of a float's memory
  const Index out_row = plan.out_columns * plan.out_channels / kUnit;
  const Index out_image = plan.out_image / kUnit;
  const auto* output = reinterpret_cast<const float*>(tensors.output);
  return {image_rows(tensors.input + image * plan.input_image, in.width * in.channels, row + first,
                     row + end, in.height),
          image_rows(output + image * out_image, out_row, output_row * plan.out_stride[0],
                     (output_row + 1) * plan.out_stride[0], out_image / out_row)};
}

// One row of a pass, of image n of the chunk.
template <class T>
void run_row(const Work<T>& work, const Pass& pass, Index n, Index row, Index first_vector,
             Index vector_end, const RowFetch& fetch) {
  const WindowPlan& plan = work.plan;
  const GroupVectors& vectors = work.vectors;
  const Index vector_weights = plan.in_channels * pass.kernel_taps * vectors.lanes;
  GroupTilesOf<T> tiles;
  tiles.columns = pass.columns, tiles.stride = plan.in.stride[1];
  tiles.runs = plan.offsets() + pass.tap, tiles.run_count = pass.taps / kGroupRunIndices;
  tiles.plane_pitch = plan.lanes.planes ? plan.lanes.plane_pitch : 0;
  tiles.group = vectors.shared() && !plan.lanes.planes ? plan.in_channels : 0;
  tiles.output_column = plan.out_stride[1] * plan.out_channels;
  tiles.activation = plan.tile_activation, tiles.slope = plan.slope;
  if constexpr (!std::is_same_v<T, float>)
    if (plan.tile_activation == TileActivation::kIdentity)
      tiles.function = forward_of(*work.kernels.activation, plan.activation);
  const Index first_row = pass.first_row + (work.chunk.row + row) * plan.out_stride[0];
  const Index out_row = (work.chunk.image + n) * plan.out_image +
                        (first_row * plan.out_columns + pass.first_column) * plan.out_channels;
  const float* const input = work.image_buffer(n) + row * plan.in.row_step();
  for (Index v = first_vector; v < vector_end; ++v) {
    const Index channel = vectors.first(v), out = out_row + channel;
    tiles.input = input;
    if (!plan.lanes.planes) {
      const Index first = (channel / vectors.group - work.slice.first_group) * plan.in_channels;
      tiles.input += first / kInputBlock * plan.lanes.plane_pitch + first % kInputBlock;
    }
    tiles.weights = work.tensors.weights + pass.weights + v * vector_weights;
    tiles.lanes = vectors.valid(v, plan.out_channels);
    tiles.output = work.tensors.output + out;
    tiles.bias = work.tensors.bias ? work.tensors.bias + channel : nullptr;
    tiles.residual = work.tensors.residual ? work.tensors.residual + out : nullptr;
    const Index part = v - first_vector, parts = vector_end - first_vector;
    tiles.fetch_input = part_of(fetch.input, part, parts);
    tiles.fetch_output = part_of(fetch.output, part, parts);
    if constexpr (std::is_same_v<T, float>) {
      work.kernels.tiles(tiles);
      activate(plan.activation, *work.kernels.activation,
               {tiles.output, pass.columns, tiles.lanes, tiles.output_column});
    } else {
      work.kernels.pair_tiles(tiles);
    }
  }
}

// What follows row `row` of image n of the chunk: its next row, or the first of the next image or
// chunk.
template <class T>
RowFetch next_row(const Work<T>& work, Index n, Index row, Index copied) {
  const WindowPlan& plan = work.plan;
  const WindowChunk& chunk = work.chunk;
  if (row + 1 < chunk.rows)
    return fetch_of(plan, work.tensors, chunk.image + n, chunk.row, copied,
                    plan.in.buffer_rows(row + 2), chunk.row + row + 1);
  if (n + 1 < chunk.images)
    return fetch_of(plan, work.tensors, chunk.image + n + 1, chunk.row, 0, plan.in.buffer_rows(1),
                    chunk.row);
  if (work.next >= chunk_count(plan)) return {};
  const WindowChunk next = chunk_at(plan, work.next);
  return fetch_of(plan, work.tensors, next.image, next.row, 0, plan.in.buffer_rows(1), next.row);
}

// Row by row: what was just copied, and whole cache lines of output, are near.
template <class T>
void run_by_rows(const Work<T>& work) {
  const WindowPlan& plan = work.plan;
  const bool whole = plan.lanes.width == plan.out_channels;
  for (Index n = 0; n < work.chunk.images; ++n) {
    Index copied = 0;
    for (Index row = 0; row < work.chunk.rows; ++row)
      for (Index p = 0; p < plan.pass_count; ++p) {
        const Pass& pass = plan.passes()[p];
        if (work.chunk.row + row >= pass.rows) continue;
        const Index needed = plan.in.buffer_rows(row + 1);
        if (needed > copied) copy_rows(work, n, copied, needed), copied = needed;
        RowFetch fetch;
        if (whole && p == 0) fetch = next_row(work, n, row, copied);
        run_row(work, pass, n, row, work.slice.vector, work.slice.vector_end, fetch);
      }
  }
}

// Vector by vector: their weights are near for all rows.
template <class T>
void run_by_vectors(const Work<T>& work) {
  const WindowPlan& plan = work.plan;
  for (Index n = 0; n < work.chunk.images; ++n)
    copy_rows(work, n, 0, plan.in.buffer_rows(work.chunk.rows));
  for (Index p = 0; p < plan.pass_count; ++p) {
    const Pass& pass = plan.passes()[p];
    const Index rows = std::min(work.chunk.rows, pass.rows - work.chunk.row);
    for (Index v = work.slice.vector; v < work.slice.vector_end; ++v)
      for (Index n = 0; n < work.chunk.images; ++n)
        for (Index row = 0; row < rows; ++row) run_row(work, pass, n, row, v, v + 1, {});
  }
}

template <class T>
void run_grouped(const KernelArgs& args, const GroupKernels& kernels) {
  const WindowPlan& plan = *reinterpret_cast<const WindowPlan*>(args.plan);
  const auto optional = [&](int i) {
    return i < 0 ? nullptr : &args.inputs[static_cast<std::size_t>(i)];
  };
  const TensorView *bias = optional(plan.extra.bias), *residual = optional(plan.extra.residual);
  const GroupTensors<T> tensors = {
      reinterpret_cast<const float*>(args.inputs[0].as<const T>()),
      args.inputs[1].as<const float>(), bias ? bias->as<const float>() : nullptr,
      residual ? residual->as<const T>() : nullptr, args.outputs[0].as<T>()};
  const GroupVectors vectors = vectors_of(plan);
  const Index slice_weights =
      plan.in_channels * plan.kernel_size[0] * plan.kernel_size[1] * plan.lanes.width;
  zero_output(plan, tensors.output, args.threads);
  const Measure measure(plan.measure, args, kernels.norm);
  auto run_chunk = [&](std::int64_t index, int worker) {
    const WindowChunk chunk = chunk_at(plan, index);
    float* buffer = reinterpret_cast<float*>(args.scratch) + worker * plan.worker_floats;
    for (Index block = chunk.block; block < chunk.block_end; ++block) {
      const Work<T> work{plan,    kernels,
                         tensors, chunk,
                         vectors, slice_at(plan, vectors, block),
                         buffer,  index + args.threads};
      if (plan.lanes.width == plan.out_channels || slice_weights <= kNearWeights)
        run_by_rows(work);
      else
        run_by_vectors(work);
    }
    measure_chunk(plan, measure, index);
  };
  parallel_for(args.threads, chunk_count(plan), run_chunk);
  measure.finish();
}

constexpr GroupKernels kBaselineKernels = {baseline::kGemmLanes,
                                           baseline::kPickLanes,
                                           baseline::group_tiles,
                                           nullptr,
                                           baseline::copy_group_row,
                                           &baseline::kActivation,
                                           &baseline::kBatchNorm,
                                           "conv2d.grouped.baseline",
                                           "conv2d_grad_input.grouped.baseline"};
void run_baseline(const KernelArgs& args) noexcept { run_grouped<float>(args, kBaselineKernels); }
#if PYCNN_HAVE_AVX2
constexpr GroupKernels kAvx2Kernels = {
    avx2::kGemmLanes,  avx2::kPickLanes,      avx2::group_tiles,
    nullptr,           avx2::copy_group_row,  &avx2::kActivation,
    &avx2::kBatchNorm, "conv2d.grouped.avx2", "conv2d_grad_input.grouped.avx2"};
void run_avx2(const KernelArgs& args) noexcept { run_grouped<float>(args, kAvx2Kernels); }
#endif
#if PYCNN_HAVE_AVX512
constexpr GroupKernels kAvx512Kernels = {avx512::kGemmLanes,
                                         avx512::kPickLanes,
                                         avx512::group_tiles,
                                         nullptr,
                                         avx512::copy_group_row,
                                         &avx512::kActivation,
                                         &avx512::kBatchNorm,
                                         "conv2d.grouped.avx512",
                                         "conv2d_grad_input.grouped.avx512"};
void run_avx512(const KernelArgs& args) noexcept { run_grouped<float>(args, kAvx512Kernels); }
constexpr GroupKernels kAvx512Pairs = {kPairLanes,
                                       true,
                                       nullptr,
                                       avx512_bf16::group_pair_tiles,
                                       avx512::copy_group_row,
                                       &avx512::kActivation,
                                       &avx512::kBatchNormBFloat16,
                                       "conv2d.grouped.bfloat16",
                                       "conv2d_grad_input.grouped.bfloat16"};
void run_avx512_pairs(const KernelArgs& args) noexcept {
  run_grouped<BFloat16>(args, kAvx512Pairs);
}
#endif
constexpr GroupKernels kPortablePairs = {kPairLanes,
                                         true,
                                         nullptr,
                                         portable::group_pair_tiles,
                                         baseline::copy_group_row,
                                         &baseline::kActivation,
                                         &baseline::kBatchNormBFloat16,
                                         "conv2d.grouped.bfloat16",
                                         "conv2d_grad_input.grouped.bfloat16"};
void run_portable_pairs(const KernelArgs& args) noexcept {
  run_grouped<BFloat16>(args, kPortablePairs);
}

}  // namespace

const GroupRunner kGroupedBaseline = {run_baseline, &kBaselineKernels, baseline::kGemmLanes};
#if PYCNN_HAVE_AVX2
const GroupRunner kGroupedAvx2 = {run_avx2, &kAvx2Kernels, avx2::kGemmLanes};
#endif
#if PYCNN_HAVE_AVX512
const GroupRunner kGroupedAvx512 = {run_avx512, &kAvx512Kernels, avx512::kGemmLanes};
const GroupRunner kGroupedPairsAvx512 = {run_avx512_pairs, &kAvx512Pairs, kPairLanes};
#endif
const GroupRunner kGroupedPairsPortable = {run_portable_pairs, &kPortablePairs, kPairLanes};

Index plan_group_rows(ConvInput& in, const GroupLayout& layout) {
  in.direct = false;
  in.pixel_pitch = layout.vector > 0 ? layout.vector : kInputBlock;
  const Index plane_pitch = ceil_div(in.buffer_columns * in.pixel_pitch, 16) * 16;
  in.row_pitch = layout.planes * plane_pitch;
  return plane_pitch;
}

void copy_group_rows(const ConvInput& in, const GroupRows& rows, Index first, Index end,
                     void (*copy)(const GroupRow&)) {
  const Index begin = std::clamp<Index>(-in.first_column, 0, in.buffer_columns);
  const Index column_end = std::clamp<Index>(in.width - in.first_column, begin, in.buffer_columns);
  const Index planes = in.row_pitch / rows.plane_pitch;
  GroupRow job;
  job.columns = column_end - begin, job.channels = in.channels;
  job.group = rows.group, job.blocks = rows.group > 0 ? 1 : planes;
  job.plane_pitch = rows.plane_pitch;
  job.end = rows.image + in.height * in.width * in.channels;
  for (Index r = first; r < end; ++r) {
    float* const to = rows.buffer + r * in.row_pitch;
    const Index row = rows.output_row * in.stride[0] + in.first_row + r;
    if (row < 0 || row >= in.height || begin == column_end) {
      std::fill_n(to, in.row_pitch, 0.0f);
      continue;
    }
    job.from =
        rows.image + (row * in.width + in.first_column + begin) * in.channels + rows.first_channel;
    for (Index p = 0; p < planes; ++p) {
      float* const plane = to + p * rows.plane_pitch;
      std::fill_n(plane, begin * in.pixel_pitch, 0.0f);
      std::fill(plane + column_end * in.pixel_pitch, plane + rows.plane_pitch, 0.0f);
    }
    job.to = to + begin * in.pixel_pitch;
    copy(job);
  }
}

const char* refuse_grouped(const WindowProblem& w, const GroupRunner& entry) {
  const Index lanes = entry.lanes;
  if (w.groups == 1) return "there is one group";
  const Index outputs = w.output[3] / w.groups, inputs = w.input[3] / w.groups;
  const Index stride = w.transposed ? 1 : w.stride[1];
  if (std::max(inputs, outputs) > kMaxGroup) return "groups have more than 64 channels";
  if (w.kernel_size == Pair{1, 1}) return "copying rows does not pay for a window of 1x1";
  // Measured on AVX2: slice by slice, these cost more than they gain.
  if (outputs >= 2 * lanes && w.stride[1] != 1 && weight_floats(w) > kAllWeights)
    return "strided groups of two vectors or more";
  if (outputs == 1 && w.output[2] < kMinDepthwise) return "short rows of single channels";
  if (outputs < lanes) {
    if (inputs != outputs || lanes % outputs != 0) return "groups do not fill the lanes";
    if (stride > 1 && !entry.kernels->pick_lanes)
      return "groups share vectors and the stride is not 1";
  }
  if (stride > 2) return "the stride is more than 2";
  return nullptr;
}

const char* refuse_grouped_pairs(const WindowProblem& w) {
  if (w.groups == 1) return "there is one group";
  const Index outputs = w.output[3] / w.groups, inputs = w.input[3] / w.groups;
  if (inputs != outputs) return "groups read and write different numbers of channels";
  if (outputs % 2 != 0) return "groups have an odd number of channels";
  if (outputs > kMaxGroup) return "groups have more than 64 channels";
  if (outputs < kPairLanes && kPairLanes % outputs != 0) return "groups do not fill the lanes";
  if (w.kernel_size == Pair{1, 1}) return "copying rows does not pay for a window of 1x1";
  if ((w.transposed ? 1 : w.stride[1]) > 2) return "the stride is more than 2";
  return nullptr;
}

Kernel make_grouped_kernel(const WindowProblem& problem, int threads, const GroupRunner& entry) {
  const bool pairs = entry.kernels->pair_tiles != nullptr;
  WindowProblem window = problem;
  if (pairs) window.input[3] /= 2;
  Kernel kernel =
      plan_window_kernel(window, choose_lanes(window, *entry.kernels), entry.lanes, threads);
  kernel.run = entry.run;
  kernel.packed.pack = pairs ? pack_weights<BFloat16> : pack_weights<float>;
  kernel.packed.format =
      window.transposed ? entry.kernels->transposed_format : entry.kernels->format;
  return kernel;
}

}  // namespace pycnn::cpu
