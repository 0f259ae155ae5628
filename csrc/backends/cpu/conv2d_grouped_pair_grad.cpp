#include "backends/cpu/conv2d_grouped_pair_grad.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/conv2d_grouped_tiles.h"
#include "core/half.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

struct GroupPairLoops {
  void (*sums)(const GroupPairSums&);
  void (*pair_row)(const GroupPairRow&);
};

struct GroupPairGradPlan {
  Index images = 0, height = 0, width = 0;
  Index rows = 0, columns = 0;  // of the gradient
  Index channels = 0, group = 0, slices = 0;
  Index kernel_rows = 0, row_step = 1;  // rows of the input from tap to tap
  Pair stride = {1, 1}, padding = {0, 0};
  Index row_block = 1, row_blocks = 0;
  Index pixels = 0;                             // of a copied row of the input
  Index input_elements = 0, grad_elements = 0;  // of the copies
  Index parts = 1, splits = 1;
  Index bias = 0;

  Index input_row() const { return pixels * kGroupSlice; }
  Index grad_row() const { return ceil_div(columns, Index{2}) * 2 * kGroupSlice; }
  Index input_rows(Index output_rows) const {
    return (output_rows - 1) * stride[0] + (kernel_rows - 1) * row_step + 1;
  }
  Index row_sums() const { return kGroupSlice * group * 3; }  // [half][k][tap][16]
  Index slice_sums() const { return kernel_rows * row_sums(); }
  Index part_floats() const { return slices * slice_sums(); }
};

static_assert(std::has_unique_object_representations_v<GroupPairGradPlan>);

constexpr Index kNearElements = 40 * 1024;      // of both copies, in the second-level cache
constexpr Index kGroupPairFloats = 512 * 1024;  // of all parts
constexpr Index kMostGroupPairParts = 8;
constexpr Index kGroupPairChunks = 16;

struct GroupPairTensors {
  const BFloat16* input;
  const BFloat16* grad;
  float* grad_weight;
  float* grad_bias;
  float* sums;        // [part][slice][kernel row][half][k][tap][16]
  float* bias_parts;  // [part][channel]
};

// Rows of a slice with zeros around what the image has.
void copy_slice_rows(const GroupPairGradPlan& plan, const BFloat16* image, Index first_row,
                     Index rows, BFloat16* to) {
  constexpr std::size_t kBytes = kGroupSlice * sizeof(BFloat16);
  const Index begin = std::clamp<Index>(plan.padding[1], 0, plan.pixels);
  const Index end = std::clamp<Index>(plan.width + plan.padding[1], begin, plan.pixels);
  auto clear = [to](Index first, Index last) {
    std::memset(static_cast<void*>(to + first * kGroupSlice), 0,
                static_cast<std::size_t>(last - first) * kBytes);
  };
  for (Index r = 0; r < rows; ++r) {
    const Index row = first_row + r, at = r * plan.pixels;
    if (row < 0 || row >= plan.height) {
      clear(at, at + plan.pixels);
      continue;
    }
    clear(at, at + begin);
    const BFloat16* from = image + (row * plan.width + begin - plan.padding[1]) * plan.channels;
    for (Index p = begin; p < end; ++p, from += plan.channels)
      std::memcpy(to + (at + p) * kGroupSlice, from, kBytes);
    clear(at + end, at + plan.pixels);
  }
}

void add_slice(const GroupPairGradPlan& plan, const GroupPairLoops& loops,
               const GroupPairTensors& tensors, Index image, Index block, Index slice, Index part,
               bool accumulate, BFloat16* buffer) {
  const Index first = block * plan.row_block, rows = std::min(plan.row_block, plan.rows - first);
  const Index channel = slice * kGroupSlice;
  copy_slice_rows(plan, tensors.input + image * plan.height * plan.width * plan.channels + channel,
                  first * plan.stride[0] - plan.padding[0], plan.input_rows(rows), buffer);
  GroupPairRow row;
  row.columns = plan.columns, row.channels = plan.channels;
  row.from = tensors.grad + (image * plan.rows + first) * plan.columns * plan.channels + channel;
  BFloat16* const grads = row.to = buffer + plan.input_elements;
  for (Index r = 0; r < rows; ++r, row.from += plan.columns * plan.channels) {
    loops.pair_row(row);
    row.to += plan.grad_row();
    if (!plan.bias) continue;
    float* const bias = tensors.bias_parts + part * plan.channels + channel;
    if (!accumulate && r == 0) std::fill_n(bias, kGroupSlice, 0.0f);
    for (Index c = 0; c < plan.columns; ++c)
      for (Index i = 0; i < kGroupSlice; ++i)
        bias[i] += float_from_bfloat16(row.from[c * plan.channels + i].bits);
  }
  GroupPairSums job;
  job.input_row = plan.stride[0] * plan.input_row(), job.stride = plan.stride[1];
  job.grad = grads, job.grad_row = plan.grad_row();
  job.rows = rows, job.columns = plan.columns, job.group = plan.group;
  job.accumulate = accumulate;
  job.sums = tensors.sums + part * plan.part_floats() + slice * plan.slice_sums();
  for (Index i = 0; i < plan.kernel_rows; ++i, job.sums += plan.row_sums()) {
    job.input = buffer + i * plan.row_step * plan.input_row();
    loops.sums(job);
  }
}

// Adds the parts in their order; from [kernel row][half][k][tap][16] to [channel][kernel row][tap]
// [k].
void combine_slice(const GroupPairGradPlan& plan, const GroupPairTensors& tensors, Index slice) {
  float* from = tensors.sums + slice * plan.slice_sums();
  for (Index part = 1; part < plan.parts; ++part) {
    const float* other = from + part * plan.part_floats();
    for (Index i = 0; i < plan.slice_sums(); ++i) from[i] += other[i];
  }
  const Index filter = plan.kernel_rows * 3 * plan.group;
  for (Index row = 0; row < plan.kernel_rows; ++row)
    for (Index half = 0; half < 2; ++half) {
      float* to = tensors.grad_weight + (slice * kGroupSlice + half * kPairLanes) * filter +
                  row * 3 * plan.group;
      for (Index k = 0; k < plan.group; ++k)
        for (Index t = 0; t < 3; ++t, from += kPairLanes)
          for (Index lane = 0; lane < kPairLanes; ++lane)
            to[lane * filter + t * plan.group + k] = from[lane];
    }
}

void run_group_pair_grad(const KernelArgs& args, const GroupPairLoops& loops) {
  const GroupPairGradPlan& plan = *reinterpret_cast<const GroupPairGradPlan*>(args.plan);
  GroupPairTensors tensors;
  tensors.input = args.inputs[0].as<const BFloat16>();
  tensors.grad = args.inputs[1].as<const BFloat16>();
  tensors.grad_weight = args.outputs[0].as<float>();
  tensors.grad_bias = plan.bias ? args.outputs[1].as<float>() : nullptr;
  if (plan.images * plan.rows * plan.columns == 0) {
    std::fill_n(tensors.grad_weight, plan.channels * plan.kernel_rows * 3 * plan.group, 0.0f);
    if (plan.bias) std::fill_n(tensors.grad_bias, plan.channels, 0.0f);
    return;
  }
  tensors.sums = reinterpret_cast<float*>(args.scratch);
  tensors.bias_parts = tensors.sums + plan.parts * plan.part_floats();
  auto* const buffers =
      reinterpret_cast<BFloat16*>(tensors.bias_parts + plan.bias * plan.parts * plan.channels);
  auto run_chunk = [&](std::int64_t index, int worker) {
    const Index part = index / plan.splits, split = index % plan.splits;
    const Index first = plan.images * part / plan.parts;
    BFloat16* const buffer = buffers + worker * (plan.input_elements + plan.grad_elements);
    for (Index image = first; image < plan.images * (part + 1) / plan.parts; ++image)
      for (Index block = 0; block < plan.row_blocks; ++block)
        for (Index slice = plan.slices * split / plan.splits;
             slice < plan.slices * (split + 1) / plan.splits; ++slice)
          add_slice(plan, loops, tensors, image, block, slice, part, image != first || block > 0,
                    buffer);
  };
  parallel_for(args.threads, plan.parts * plan.splits, run_chunk);
  auto combine = [&](std::int64_t slice, int) { combine_slice(plan, tensors, slice); };
  parallel_for(args.threads, plan.slices, combine);
  if (!plan.bias) return;
  std::copy_n(tensors.bias_parts, plan.channels, tensors.grad_bias);
  for (Index part = 1; part < plan.parts; ++part)
    for (Index c = 0; c < plan.channels; ++c)
      tensors.grad_bias[c] += tensors.bias_parts[part * plan.channels + c];
}

constexpr GroupPairLoops kPortableGroups = {portable::group_pair_sums, portable::pair_group_row};
void run_portable_groups(const KernelArgs& args) noexcept {
  run_group_pair_grad(args, kPortableGroups);
}
#if PYCNN_HAVE_AVX512
constexpr GroupPairLoops kAvx512Groups = {avx512_bf16::group_pair_sums,
                                          avx512_bf16::pair_group_row};
void run_avx512_groups(const KernelArgs& args) noexcept {
  run_group_pair_grad(args, kAvx512Groups);
}
#endif

}  // namespace

const KernelFunction kGroupPairGradPortable = run_portable_groups;
#if PYCNN_HAVE_AVX512
const KernelFunction kGroupPairGradAvx512 = run_avx512_groups;
#endif

const char* refuse_group_pair_grad(const WeightGradProblem& p) {
  if (p.groups == 1) return "there is one group";
  const Index group = p.input[3] / p.groups;
  if (group != p.grad_output[3] / p.groups) return "groups have other inputs than outputs";
  if (group % 4 != 0 || kGroupSlice % group != 0) return "groups have not 4, 8, 16 or 32 channels";
  if (p.input[3] % kGroupSlice != 0) return "channels do not fill slices of 32";
  if (p.kernel_size[1] != 3 || p.dilation[1] != 1) return "not three taps side by side";
  if (p.stride[1] > 2) return "the stride along rows is above 2";
  return nullptr;
}

Kernel make_group_pair_grad_kernel(const WeightGradProblem& p, int threads, KernelFunction run) {
  GroupPairGradPlan plan;
  plan.images = p.input[0], plan.height = p.input[1], plan.width = p.input[2];
  plan.rows = p.grad_output[1], plan.columns = p.grad_output[2];
  plan.channels = p.input[3], plan.group = p.input[3] / p.groups;
  plan.slices = plan.channels / kGroupSlice;
  plan.kernel_rows = p.kernel_size[0], plan.row_step = p.dilation[0];
  plan.stride = p.stride, plan.padding = p.padding;
  plan.bias = p.bias;
  plan.pixels = (plan.columns - 1) * p.stride[1] + 3;
  auto elements = [&](Index rows) {
    return plan.input_rows(rows) * plan.input_row() + rows * plan.grad_row();
  };
  plan.row_block = std::max<Index>(1, plan.rows);
  for (Index n = 2; plan.row_block > 1 && elements(plan.row_block) > kNearElements; ++n)
    plan.row_block = ceil_div(plan.rows, n);
  plan.row_blocks = ceil_div(plan.rows, plan.row_block);
  plan.input_elements = plan.input_rows(plan.row_block) * plan.input_row();
  plan.grad_elements = plan.row_block * plan.grad_row();
  plan.parts = std::clamp<Index>(kGroupPairFloats / plan.part_floats(), 1,
                                 std::clamp<Index>(plan.images, 1, kMostGroupPairParts));
  plan.splits = std::min(plan.slices, ceil_div(kGroupPairChunks, plan.parts));

  Kernel kernel;
  kernel.run = run;
  const Index floats = plan.parts * (plan.part_floats() + plan.bias * plan.channels);
  kernel.scratch_bytes =
      static_cast<std::size_t>(floats) * sizeof(float) +
      static_cast<std::size_t>(std::max(threads, 1) * (plan.input_elements + plan.grad_elements)) *
          sizeof(BFloat16);
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu
