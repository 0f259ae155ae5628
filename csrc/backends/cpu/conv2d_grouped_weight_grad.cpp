#include "backends/cpu/conv2d_grouped_weight_grad.h"

#include <algorithm>

#include "backends/cpu/conv2d_grouped_rows.h"
#include "core/parallel.h"

namespace pycnn::cpu {

struct GroupGradKernels {
  Index lanes;
  void (*copy)(const GroupRow&);
  void (*products)(const GroupProducts&);
  void (*column_sums)(const ColumnSums&);
  void (*add)(float* to, const float* from, Index count);
};

namespace {

constexpr Index kMaxGroup = 64;             // channels
constexpr Index kNearFloats = 6 * 1024;     // of rows of both operands that stay in L1
constexpr Index kBufferFloats = 48 * 1024;  // of copied rows
constexpr Index kBlockFloats = 48 * 1024;   // of rows of both operands that stay in L2
constexpr Index kShortRow = 16;             // pixels; longer rows of gradients are read in place
constexpr Index kLargeSums = 32 * 1024;     // floats that no part should have of its own
constexpr Index kLeastRows = 4;  // of a block: its first are those that another one ends with
constexpr Index kMaxParts = 8;
constexpr Index kSplitChannels = 128;  // of large sums
constexpr Index kWantedChunks = 16;

// Neighbouring taps of one row and the channels that they read in one block.
struct Run {
  Index offset, taps, channels;
  Index row, column, channel;  // in the weight: the first of each
};

// Followed in the plan's bytes by the runs.
struct GroupGradPlan {
  ConvInput in;
  Index images = 0, rows = 0, columns = 0;  // of the gradient of the output
  Index out_channels = 0, groups = 1, lanes = 0;
  Index kernel_rows = 0, kernel_columns = 0;
  Index block_pitch = 0;               // from one block of a row of the copy to the next
  Index slice_groups = 1, slices = 1;  // groups whose rows are copied at a time
  Index row_block = 1, near_rows = 1;  // rows of a copy of the input; rows with one sum
  Index grads_copied = 0;              // rows of the gradient are copied too, else read in place
  Index parts = 1, splits = 1;         // of the images; of the slices
  Index bias = 0;
  Index input_floats = 0, grad_floats = 0, workers = 1;  // copies of a worker
  Index run_count = 0;

  const Run* runs() const { return reinterpret_cast<const Run*>(this + 1); }
  Index group_inputs() const { return in.channels / groups; }
  Index group_outputs() const { return out_channels / groups; }
  // Copies of gradients are in blocks, too.
  Index grad_blocks() const { return ceil_div(slice_groups * group_outputs(), kInputBlock); }
  Index grad_row() const { return columns * kInputBlock; }
  GroupVectors vectors() const { return {lanes, out_channels / groups}; }
  // Sums of a vector: [run][channel][tap][lane].
  Index vector_sums() const { return kernel_rows * kernel_columns * group_inputs() * lanes; }
  Index part_floats() const { return vectors().count(out_channels) * vector_sums(); }
};

static_assert(std::has_unique_object_representations_v<GroupGradPlan> &&
              std::has_unique_object_representations_v<Run>);

// ---- Planning

std::vector<Run> make_runs(const WeightGradProblem& p, const GroupGradPlan& plan) {
  std::vector<Run> runs;
  const bool joined = p.dilation[1] == 1;
  for (Index row = 0; row < plan.kernel_rows; ++row)
    for (Index column = 0; column < plan.kernel_columns;) {
      const Index taps = joined && plan.kernel_columns - column >= 3 ? 3 : 1;
      const Index offset = plan.in.tap_offset(row * p.dilation[0] - p.padding[0],
                                              column * p.dilation[1] - p.padding[1]);
      for (Index k = 0; k < plan.group_inputs(); k += kInputBlock)
        runs.push_back({offset + k / kInputBlock * plan.block_pitch, taps,
                        std::min(kInputBlock, plan.group_inputs() - k), row, column, k});
      column += taps;
    }
  return runs;
}

void plan_rows(GroupGradPlan& plan) {
  const ConvInput& in = plan.in;
  plan.row_block = plan.rows;
  // Of all slices of a chunk, which are copied one after the other.
  const Index share = ceil_div(plan.slices, plan.splits) * plan.slice_groups;
  const Index row_floats =
      share * (in.stride[0] * in.width * plan.group_inputs() + plan.columns * plan.group_outputs());
  for (Index n = 2;
       plan.row_block > kLeastRows && (in.buffer_floats(plan.row_block) > kBufferFloats ||
                                       plan.row_block * row_floats > kBlockFloats);
       ++n)
    plan.row_block = ceil_div(plan.rows, n);
  plan.grads_copied = plan.columns < kShortRow;
  const Index near = (kNearFloats - (in.tap_rows - in.stride[0]) * in.row_pitch) /
                     (in.row_step() + plan.grad_blocks() * plan.grad_row());
  plan.near_rows = std::clamp<Index>(near, 1, plan.row_block);
  plan.input_floats = ceil_div(in.buffer_floats(plan.row_block), 16) * 16;
  plan.grad_floats = ceil_div(plan.grad_blocks() * plan.near_rows * plan.grad_row(), 16) * 16;
}

void plan_chunks(GroupGradPlan& plan) {
  plan.parts = std::clamp<Index>(plan.images, 1, kMaxParts);
  if (plan.part_floats() > kLargeSums) {
    // Few parts, of pieces of pixels that are long enough for memory.
    plan.splits = std::clamp<Index>(plan.out_channels / kSplitChannels, 1, plan.slices);
    plan.parts = std::min(plan.parts, ceil_div(kWantedChunks, plan.splits));
  }
  while (plan.parts * plan.splits < kWantedChunks && plan.splits * 2 <= plan.slices)
    plan.splits *= 2;
}

// ---- Running

struct Tensors {
  const float* input;
  const float* grad_output;
  float* grad_weight;
  float* grad_bias;
  float* sums;        // of all parts
  float* bias_parts;  // of all parts but the first
};

// What one chunk adds up: slices of some images.
struct Chunk {
  Index part, image, image_end, slice, slice_end;
};

Chunk chunk_at(const GroupGradPlan& plan, Index index) {
  Chunk chunk;
  chunk.part = index / plan.splits;
  chunk.image = plan.images * chunk.part / plan.parts;
  chunk.image_end = plan.images * (chunk.part + 1) / plan.parts;
  const Index split = index % plan.splits;
  chunk.slice = plan.slices * split / plan.splits;
  chunk.slice_end = plan.slices * (split + 1) / plan.splits;
  return chunk;
}

// Groups [first, end) of one slice.
struct Groups {
  Index first, end;
};

// Rows [first, end) of the gradient of an image.
struct RowBlock {
  Index image, first, end;
};

RowBlock block_at(const GroupGradPlan& plan, Index image, Index block) {
  const Index first = block * plan.row_block;
  return {image, first, std::min(first + plan.row_block, plan.rows)};
}

// Rows of an image, of whose pixels some channels are wanted.
struct WantedRows {
  const float* from = nullptr;  // the first row's
  Index pixels = 0, channels = 0, pitch = 0;

  LineRuns part(Index first, Index end) const {
    return {from + first * pitch, end - first, channels, pitch};
  }
};

// What a block of rows will read, asked for in shares, one a call for products.
struct Wanted {
  WantedRows input, grad;
  Index done = 0, calls = 1;

  LineRuns next_share() {
    const Index pixels = input.pixels + grad.pixels;
    const Index first = pixels * done / calls, end = pixels * (done + 1) / calls;
    ++done;
    // One share has pixels of both, of which it asks for the input's.
    if (first < input.pixels) return input.part(first, std::min(end, input.pixels));
    return grad.part(first - input.pixels, end - input.pixels);
  }
};

Wanted wanted_of(const GroupGradPlan& plan, const Tensors& tensors, const Chunk& chunk,
                 const RowBlock& block) {
  const ConvInput& in = plan.in;
  const Index group = chunk.slice * plan.slice_groups;
  const Index groups = std::min(chunk.slice_end * plan.slice_groups, plan.groups) - group;
  auto row_at = [&](Index row, Index more) {
    return std::clamp<Index>(row * in.stride[0] + in.first_row + more, 0, in.height);
  };
  const Index first = row_at(block.first, 0), end = row_at(block.end - 1, in.tap_rows);
  const Index out = plan.out_channels;
  Wanted wanted;
  wanted.input = {tensors.input + (block.image * in.height + first) * in.width * in.channels +
                      group * plan.group_inputs(),
                  (end - first) * in.width, groups * plan.group_inputs(), in.channels};
  wanted.grad = {tensors.grad_output +
                     (block.image * plan.rows + block.first) * plan.columns * out +
                     group * plan.group_outputs(),
                 (block.end - block.first) * plan.columns, groups * plan.group_outputs(), out};
  return wanted;
}

// Copies rows of the gradient to blocks of channels.
void copy_grads(const GroupGradPlan& plan, const GroupGradKernels& kernels, const float* grad,
                const float* end, Index rows, float* to) {
  GroupRow job;
  job.end = end;
  job.columns = plan.columns, job.channels = plan.out_channels;
  for (Index b = 0; b < plan.grad_blocks(); ++b)
    for (Index row = 0; row < rows; ++row) {
      job.from = grad + row * plan.columns * plan.out_channels + b * kInputBlock;
      job.to = to + (b * plan.near_rows + row) * plan.grad_row();
      kernels.copy(job);
    }
}

// Products of some rows of a block, for all vectors of a slice; `rows` holds both copies.
void add_rows(const GroupGradPlan& plan, const GroupGradKernels& kernels, const Groups& groups,
              const GroupProducts& rows, Wanted& wanted, float* sums) {
  const GroupVectors vectors = plan.vectors();
  const Index first = groups.first * vectors.group, end = groups.end * vectors.group;
  for (Index v = vectors.count(first); v < vectors.count(end); ++v) {
    const Index channel = vectors.first(v) - first;
    GroupProducts job = rows;
    job.grad += plan.grads_copied ? channel / kInputBlock * plan.near_rows * plan.grad_row() +
                                        channel % kInputBlock
                                  : channel;
    float* to = sums + v * plan.vector_sums();
    const float* input =
        rows.input + (vectors.shared() ? channel : channel / vectors.group * plan.group_inputs());
    for (Index r = 0; r < plan.run_count; ++r) {
      const Run& run = plan.runs()[r];
      job.input = input + run.offset, job.taps = run.taps, job.channels = run.channels;
      job.sums = to;
      job.fetch = wanted.next_share();
      kernels.products(job);
      to += run.channels * run.taps * plan.lanes;
    }
  }
}

void add_block(const GroupGradPlan& plan, const GroupGradKernels& kernels, const Tensors& tensors,
               const Chunk& chunk, const RowBlock& block, Wanted& wanted, float* buffer) {
  const ConvInput& in = plan.in;
  const Index image = block.image, first_row = block.first;
  const Index row_count = block.end - first_row;
  wanted.calls = (chunk.slice_end - chunk.slice) * ceil_div(row_count, plan.near_rows) *
                 plan.vectors().count(plan.slice_groups * plan.group_outputs()) * plan.run_count;
  const Index grad_step = plan.columns * plan.out_channels;
  const float* const grad = tensors.grad_output + (image * plan.rows + first_row) * grad_step;
  const float* const grad_end = grad + row_count * grad_step;
  GroupRows copy;
  copy.image = tensors.input + image * in.height * in.width * in.channels;
  copy.buffer = buffer, copy.output_row = first_row;
  copy.plane_pitch = plan.block_pitch;
  copy.group = 0;
  GroupProducts products;
  products.input_row = in.row_step(), products.stride = in.stride[1];
  float* const grads = buffer + plan.input_floats;
  products.grad_row = plan.grads_copied ? plan.grad_row() : grad_step;
  products.grad_column = plan.grads_copied ? kInputBlock : plan.out_channels;
  products.columns = plan.columns;
  products.group = plan.vectors().shared() ? plan.group_inputs() : 0;
  for (Index slice = chunk.slice; slice < chunk.slice_end; ++slice) {
    const Groups groups = {slice * plan.slice_groups,
                           std::min((slice + 1) * plan.slice_groups, plan.groups)};
    const Index channel = groups.first * plan.group_outputs();
    copy.first_channel = groups.first * plan.group_inputs();
    Index copied = 0;
    for (Index row = 0; row < row_count; row += plan.near_rows) {
      products.rows = std::min(plan.near_rows, row_count - row);
      const Index needed = in.buffer_rows(row + products.rows);
      copy_group_rows(in, copy, copied, needed, kernels.copy);
      copied = needed;
      products.grad = grad + row * grad_step + channel;
      if (plan.grads_copied) {
        copy_grads(plan, kernels, products.grad, grad_end, products.rows, grads);
        products.grad = grads;
      }
      products.input = buffer + row * in.row_step();
      products.accumulate = image != chunk.image || first_row > 0 || row > 0;
      add_rows(plan, kernels, groups, products, wanted,
               tensors.sums + chunk.part * plan.part_floats());
    }
    if (!plan.bias) continue;
    ColumnSums sums;
    sums.b = grad + channel;
    sums.rows = row_count, sums.columns = plan.columns;
    sums.b_row = grad_step, sums.b_column = plan.out_channels;
    sums.n = groups.end * plan.group_outputs() - channel;
    sums.sums = (chunk.part == 0 ? tensors.grad_bias
                                 : tensors.bias_parts + (chunk.part - 1) * plan.out_channels) +
                channel;
    sums.accumulate = image != chunk.image || first_row > 0;
    kernels.column_sums(sums);
  }
}

// From [run][channel][tap][lane] to [output channel][kernel row][kernel column][channel].
void unpack(const GroupGradPlan& plan, const Tensors& tensors, Index vector) {
  const GroupVectors vectors = plan.vectors();
  const Index first = vectors.first(vector), valid = vectors.valid(vector, plan.out_channels);
  const Index inputs = plan.group_inputs();
  const Index filter = plan.kernel_rows * plan.kernel_columns * inputs;
  const float* from = tensors.sums + vector * plan.vector_sums();
  for (Index r = 0; r < plan.run_count; ++r) {
    const Run& run = plan.runs()[r];
    float* const tap = tensors.grad_weight + first * filter +
                       (run.row * plan.kernel_columns + run.column) * inputs + run.channel;
    for (Index k = 0; k < run.channels; ++k)
      for (Index t = 0; t < run.taps; ++t, from += plan.lanes)
        for (Index lane = 0; lane < valid; ++lane) tap[lane * filter + t * inputs + k] = from[lane];
  }
}

void run_grouped(const KernelArgs& args, const GroupGradKernels& kernels) {
  const GroupGradPlan& plan = *reinterpret_cast<const GroupGradPlan*>(args.plan);
  Tensors tensors;
  tensors.input = args.inputs[0].as<const float>();
  tensors.grad_output = args.inputs[1].as<const float>();
  tensors.grad_weight = args.outputs[0].as<float>();
  tensors.grad_bias = plan.bias ? args.outputs[1].as<float>() : nullptr;
  float* const buffers = reinterpret_cast<float*>(args.scratch);
  tensors.sums = buffers + plan.workers * (plan.input_floats + plan.grad_floats);
  tensors.bias_parts = tensors.sums + plan.parts * plan.part_floats();
  if (plan.images == 0) {
    std::fill_n(tensors.grad_weight,
                plan.out_channels * plan.kernel_rows * plan.kernel_columns * plan.group_inputs(),
                0.0f);
    if (plan.bias) std::fill_n(tensors.grad_bias, plan.out_channels, 0.0f);
    return;
  }
  const Index blocks = ceil_div(plan.rows, plan.row_block);
  auto run_chunk = [&](std::int64_t index, int worker) {
    const Chunk chunk = chunk_at(plan, index);
    const Index end = chunk.image_end * blocks;
    for (Index b = chunk.image * blocks; b < end; ++b) {
      const Index next = std::min(b + 1, end - 1);
      Wanted wanted = wanted_of(plan, tensors, chunk, block_at(plan, next / blocks, next % blocks));
      add_block(plan, kernels, tensors, chunk, block_at(plan, b / blocks, b % blocks), wanted,
                buffers + worker * (plan.input_floats + plan.grad_floats));
    }
  };
  parallel_for(args.threads, plan.parts * plan.splits, run_chunk);
  auto combine = [&](std::int64_t begin, std::int64_t end) {
    for (Index v = begin; v < end; ++v) {
      float* const sums = tensors.sums + v * plan.vector_sums();
      for (Index part = 1; part < plan.parts; ++part)
        kernels.add(sums, sums + part * plan.part_floats(), plan.vector_sums());
      unpack(plan, tensors, v);
    }
  };
  parallel_ranges(args.threads, plan.vectors().count(plan.out_channels),
                  std::max<Index>(1, 16 * 1024 / plan.vector_sums()), combine);
  if (plan.bias)
    for (Index part = 1; part < plan.parts; ++part)
      kernels.add(tensors.grad_bias, tensors.bias_parts + (part - 1) * plan.out_channels,
                  plan.out_channels);
}

constexpr GroupGradKernels kBaselineKernels = {baseline::kGemmLanes, baseline::copy_group_row,
                                               baseline::group_products, baseline::column_sums,
                                               baseline::add_floats};
void run_baseline(const KernelArgs& args) noexcept { run_grouped(args, kBaselineKernels); }
#if PYCNN_HAVE_AVX2
constexpr GroupGradKernels kAvx2Kernels = {avx2::kGemmLanes, avx2::copy_group_row,
                                           avx2::group_products, avx2::column_sums,
                                           avx2::add_floats};
void run_avx2(const KernelArgs& args) noexcept { run_grouped(args, kAvx2Kernels); }
#endif
#if PYCNN_HAVE_AVX512
constexpr GroupGradKernels kAvx512Kernels = {avx512::kGemmLanes, avx512::copy_group_row,
                                             avx512::group_products, avx512::column_sums,
                                             avx512::add_floats};
void run_avx512(const KernelArgs& args) noexcept { run_grouped(args, kAvx512Kernels); }
#endif

}  // namespace

const GroupGradRun kGroupGradBaseline = {run_baseline, &kBaselineKernels, baseline::kGemmLanes};
#if PYCNN_HAVE_AVX2
const GroupGradRun kGroupGradAvx2 = {run_avx2, &kAvx2Kernels, avx2::kGemmLanes};
#endif
#if PYCNN_HAVE_AVX512
const GroupGradRun kGroupGradAvx512 = {run_avx512, &kAvx512Kernels, avx512::kGemmLanes};
#endif

const char* refuse_grouped(const WeightGradProblem& p, Index lanes) {
  if (p.groups == 1) return "there is one group";
  const Index outputs = p.grad_output[3] / p.groups, inputs = p.input[3] / p.groups;
  if (std::max(inputs, outputs) > kMaxGroup) return "groups have more than 64 channels";
  if (outputs == 1) return "groups have one channel";  // too few sums to hide latencies
  if (p.kernel_size == Pair{1, 1}) return "copying rows does not pay for a window of 1x1";
  if (outputs < lanes) {
    if (inputs != outputs || lanes % outputs != 0 || p.grad_output[3] % lanes != 0)
      return "groups do not fill the lanes";
  } else if (outputs % lanes != 0) {
    return "groups do not fill the lanes";
  }
  return nullptr;
}

Kernel make_grouped_weight_grad_kernel(const WeightGradProblem& p, int threads,
                                       const GroupGradRun& entry) {
  GroupGradPlan plan;
  plan.images = p.grad_output[0], plan.rows = p.grad_output[1], plan.columns = p.grad_output[2];
  plan.out_channels = p.grad_output[3], plan.groups = p.groups;
  plan.lanes = entry.kernels->lanes;
  plan.kernel_rows = p.kernel_size[0], plan.kernel_columns = p.kernel_size[1];
  plan.bias = p.bias;
  const TapRange range{-p.padding[0], (p.kernel_size[0] - 1) * p.dilation[0] - p.padding[0],
                       -p.padding[1], (p.kernel_size[1] - 1) * p.dilation[1] - p.padding[1]};
  plan.in = make_conv_input(p.input, p.stride, range, {plan.rows, plan.columns}, false);
  plan.slice_groups = std::min(p.groups, groups_of_block(plan.group_inputs()));
  plan.slices = ceil_div(p.groups, plan.slice_groups);
  plan.block_pitch =
      plan_group_rows(plan.in, {ceil_div(plan.slice_groups * plan.group_inputs(), kInputBlock), 0});
  const std::vector<Run> runs = make_runs(p, plan);
  plan.run_count = static_cast<Index>(runs.size());
  plan_chunks(plan);
  plan_rows(plan);
  plan.workers = std::max(threads, 1);

  Kernel kernel;
  kernel.run = entry.run;
  const Index floats = plan.workers * (plan.input_floats + plan.grad_floats) +
                       plan.parts * plan.part_floats() +
                       (plan.bias ? (plan.parts - 1) * plan.out_channels : 0);
  kernel.scratch_bytes = static_cast<std::size_t>(floats) * sizeof(float);
  append_to_plan(kernel.plan, &plan, 1);
  append_to_plan(kernel.plan, runs.data(), runs.size());
  return kernel;
}

}  // namespace pycnn::cpu
