#include "backends/cpu/conv2d_bfloat16_weight_grad.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/half.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

using PixelPointer = const BFloat16*;

// The pixels at one position modulo the stride.
struct GradPlane {
  Index row, column;
};

// Followed in the plan's bytes by the planes and the offsets of the taps.
struct PairGradPlan {
  Index images = 0, height = 0, width = 0, channels = 0;
  Index rows = 0, columns = 0, out_channels = 0;  // of the gradient
  Index groups = 1;
  Pair stride = {1, 1};
  Index first_row = 0, first_column = 0;  // of the first tap; negative in padding
  Index runs = 0;                         // the taps of a row are channels of one pixel
  Index length = 0;                       // channels of a pixel: those of the input, or of a run
  Index taps = 0, plane_count = 0;
  Index phases = 1;                // copies of the pairs: from even pixels on, from odd ones on
  Index pitch = 0, more_rows = 0;  // pixels of a row; rows beyond those of the gradient
  Index image_block = 1, row_block = 1, row_blocks = 0, units = 0;
  Index pixels = 0;          // of a unit, whole steps
  Index input_pixels = 0;    // those that its taps reach, an even number
  Index ahead = 0;           // the next unit is fetched while one is multiplied
  Index channel_blocks = 0;  // blocks of channels that a block of output channels multiplies
  Index chunk_blocks = 0;    // blocks of channels that are copied at a time
  Index parts = 1;
  Index splits = 1, column_splits = 1;  // of the blocks of output channels, and of channels
  Index direct = 0;  // whole blocks of one sum, which are stored where the weight has them
  Index bias = 0;
  Index row_elements = 0;  // of a copied row, for runs
  Index copy_elements = 0, input_elements = 0, grad_elements = 0, table_entries = 0;  // a worker's

  const GradPlane* planes() const { return reinterpret_cast<const GradPlane*>(this + 1); }
  const Index* offsets() const { return reinterpret_cast<const Index*>(planes() + plane_count); }
  Index blocks() const { return ceil_div(out_channels, kPairBlock); }
  Index input_blocks() const { return ceil_div(length, kPairBlock); }
  Index group_reads() const { return length / groups; }
  Index group_writes() const { return out_channels / groups; }
  Index image_pitch() const { return (row_block + more_rows) * pitch; }
  Index half_pitch() const { return input_pixels * 16; }  // elements of 16 channels
  // Of 16 output channels: an even number of steps would bring many lines to the same cache set.
  Index grad_pitch() const { return (pixels + 2) * 16; }
  Index block_sums() const { return channel_blocks * taps * kPairBlock * kPairBlock; }
  Index part_floats() const { return blocks() * block_sums(); }
  Index sum_floats() const { return direct ? 0 : parts * part_floats(); }  // of scratch
  // The first of the blocks of channels that a block of output channels multiplies.
  Index first_block(Index block) const {
    const Index channel = block * kPairBlock / group_writes() * group_reads();
    return std::min(channel / kPairBlock, input_blocks() - channel_blocks);
  }
  Index split_begin(Index split) const { return blocks() * split / splits; }
  Index column_begin(Index split) const { return input_blocks() * split / column_splits; }
};

static_assert(std::has_unique_object_representations_v<PairGradPlan>);

constexpr Index kUnitPixels = 1024;  // 32 steps for each visit of a sum
constexpr Index kLeastUnitPixels = 256;
constexpr Index kAmxUnitPixels = 512;
constexpr Index kNearPartFloats = 1024 * 1024;  // larger parts want fewer visits
constexpr Index kOperandElements = 512 * 1024;  // of each side: both stay in L2
constexpr Index kPairPartFloats = 4 * 1024 * 1024;
constexpr Index kSmallPairPart = 64 * 1024, kMiddlePairPart = 640 * 1024;
constexpr Index kMostPairParts = 16, kMiddlePairParts = 4;
constexpr Index kSharesOfThread = 2, kLeastShares = 4;  // splits that even out what threads have
constexpr double kPairGradFlops = 1e8;                  // that are worth a chunk

// ---- Planning

void plan_shape(const WeightGradProblem& p, PairGradPlan& plan) {
  plan.images = p.input[0], plan.height = p.input[1], plan.width = p.input[2];
  plan.channels = p.input[3];
  plan.rows = p.grad_output[1], plan.columns = p.grad_output[2];
  plan.out_channels = p.grad_output[3];
  plan.groups = p.groups, plan.stride = p.stride, plan.bias = p.bias;
  plan.first_row = -p.padding[0], plan.first_column = -p.padding[1];
  const bool single = p.kernel_size == Pair{1, 1} && p.stride == Pair{1, 1} &&
                      p.padding == Pair{0, 0} && plan.height == plan.rows &&
                      plan.width == plan.columns;
  if (single) {  // all pixels are one column
    plan.height = plan.rows = plan.images * plan.rows * plan.columns;
    plan.images = plan.width = plan.columns = 1;
  }
  const Index merged = ceil_div(p.kernel_size[1] * plan.channels, kPairBlock);
  plan.runs = p.groups == 1 && p.dilation[1] == 1 && !single &&
              merged < p.kernel_size[1] * ceil_div(plan.channels, kPairBlock);
  plan.length = plan.runs ? p.kernel_size[1] * plan.channels : plan.channels;
  plan.ahead = p.groups == 1 && p.kernel_size == Pair{1, 1};
  const Index reach = plan.runs ? 0 : (p.kernel_size[1] - 1) * p.dilation[1];
  plan.pitch = plan.columns + reach / p.stride[1];
  plan.more_rows = (p.kernel_size[0] - 1) * p.dilation[0] / p.stride[0];
  if (plan.runs)
    plan.row_elements = ((plan.columns - 1) * p.stride[1] + p.kernel_size[1]) * plan.channels;
  plan.channel_blocks = plan.input_blocks();
  if (p.groups > 1) {
    plan.channel_blocks = 1;
    for (Index block = 0; block < plan.blocks(); ++block) {
      const Index last = std::min((block + 1) * kPairBlock, plan.out_channels) - 1;
      const Index begin = block * kPairBlock / plan.group_writes() * plan.group_reads();
      const Index end = (last / plan.group_writes() + 1) * plan.group_reads();
      plan.channel_blocks =
          std::max(plan.channel_blocks, ceil_div(end, kPairBlock) - begin / kPairBlock);
    }
  }
}

struct GradTaps {
  std::vector<GradPlane> planes;
  std::vector<Index> plane, shift;  // of each tap; shifts count pixels
};

GradTaps find_taps(const WeightGradProblem& p, const PairGradPlan& plan) {
  GradTaps taps;
  const Index column_step = plan.runs ? 1 : plan.stride[1];
  for (Index i = 0; i < p.kernel_size[0]; ++i)
    for (Index j = 0; j < (plan.runs ? 1 : p.kernel_size[1]); ++j) {
      const Index row = i * p.dilation[0], column = j * p.dilation[1];
      const GradPlane wanted{row % plan.stride[0], column % column_step};
      auto found = std::find_if(taps.planes.begin(), taps.planes.end(), [&](const GradPlane& x) {
        return x.row == wanted.row && x.column == wanted.column;
      });
      taps.plane.push_back(found - taps.planes.begin());
      if (found == taps.planes.end()) taps.planes.push_back(wanted);
      taps.shift.push_back(row / plan.stride[0] * plan.pitch + column / column_step);
    }
  return taps;
}

// Units long enough that visiting a sum pays, small enough that both operands stay near.
void plan_units(PairGradPlan& plan, Index unit_pixels) {
  if (plan.images * plan.rows == 0) return;
  const Index copies = plan.plane_count * plan.phases;
  Index near = kUnitPixels;
  if (plan.groups > 1)  // all channels are copied at once
    near = kOperandElements / (copies * plan.input_blocks() * kPairBlock);
  else if (plan.ahead && plan.part_floats() < kNearPartFloats)
    near = unit_pixels;
  const Index wanted = std::clamp(near, kLeastUnitPixels, kUnitPixels);
  plan.row_block = plan.rows;
  for (Index n = 2; plan.row_block > 1 && plan.image_pitch() > 3 * wanted / 2; ++n)
    plan.row_block = ceil_div(plan.rows, n);
  if (plan.row_block == plan.rows)
    plan.image_block = std::clamp<Index>(wanted / plan.image_pitch(), 1, plan.images);
  plan.row_blocks = ceil_div(plan.rows, plan.row_block);
  plan.units = ceil_div(plan.images, plan.image_block) * plan.row_blocks;
  const Index last = (plan.image_block - 1) * plan.image_pitch() +
                     (plan.row_block - 1) * plan.pitch + plan.columns;
  plan.pixels = ceil_div(last, kPairStep) * kPairStep;
}

// Splits of both sides: each of one side copies the other one again. They move no sum's border, so
// they may depend on the threads.
void plan_splits(PairGradPlan& plan, Index wanted) {
  const Index copies = plan.plane_count * plan.phases;
  Index best = 0;
  for (Index rows = 1; rows <= std::min(wanted, plan.blocks()); ++rows) {
    const Index columns = std::min(ceil_div(wanted, rows), plan.input_blocks());
    // Shares that are too few count as if all had to wait.
    const Index missing = ceil_div(wanted, rows * columns);
    const Index cost = missing * (rows * copies * plan.input_blocks() + columns * plan.blocks());
    if (best > 0 && cost >= best) continue;
    best = cost, plan.splits = rows, plan.column_splits = columns;
  }
}

void plan_parts(PairGradPlan& plan, bool splits_both, Index threads) {
  const double flops = 2.0 * static_cast<double>(plan.images * plan.rows * plan.columns) *
                       static_cast<double>(plan.group_reads() * plan.out_channels * plan.taps);
  const Index chunks = static_cast<Index>(
      std::clamp(std::ceil(flops / kPairGradFlops), 1.0, static_cast<double>(kMostPairParts)));
  const Index most_parts = std::clamp<Index>(kPairPartFloats / plan.part_floats(), 1,
                                             std::clamp<Index>(plan.units, 1, kMostPairParts));
  const Index shares = std::min(chunks, std::max<Index>(kSharesOfThread * threads, kLeastShares));
  if (!splits_both || plan.groups > 1) {
    const Index few = std::max<Index>(1, plan.blocks() / 4);  // each copies all channels
    if (plan.part_floats() <= kSmallPairPart) {
      plan.parts = std::min(chunks, most_parts);
      plan.splits = std::min(few, ceil_div(chunks, plan.parts));
    } else {
      plan.splits = std::min(chunks, few);
      plan.parts = std::min(most_parts, ceil_div(chunks, plan.splits));
    }
    return;
  }
  // Sums of parts that stay in the second-level cache spare copies; larger ones are split.
  if (plan.part_floats() <= kSmallPairPart)
    plan.parts = std::min(chunks, most_parts);
  else if (plan.part_floats() <= kMiddlePairPart)
    plan.parts = std::min({chunks, most_parts, kMiddlePairParts});
  plan_splits(plan, ceil_div(shares, plan.parts));
}

// A sum that is visited once goes straight to the weight.
bool is_direct(const PairGradPlan& plan) {
  return plan.units == 1 && plan.parts == 1 && plan.taps == 1 && plan.groups == 1 && !plan.runs &&
         plan.out_channels % kPairBlock == 0 && plan.length % kPairBlock == 0;
}

void plan_operands(const GradTaps& taps, PairGradPlan& plan) {
  Index reach = 0;
  for (const Index shift : taps.shift) reach = std::max(reach, shift);
  plan.input_pixels = ceil_div(plan.pixels + reach + 1, 2) * 2;
  const Index block = 2 * plan.half_pitch() * plan.plane_count * plan.phases;
  plan.chunk_blocks = plan.groups > 1
                          ? plan.input_blocks()
                          : std::clamp<Index>(kOperandElements / block, 1,
                                              ceil_div(plan.input_blocks(), plan.column_splits));
  plan.input_elements = plan.chunk_blocks * block;
  const Index outputs = ceil_div(plan.blocks(), plan.splits) * kPairBlock;
  plan.grad_elements = outputs / 16 * plan.grad_pitch();
  // One pixel more, since the odd pairs end with it.
  plan.table_entries = plan.input_pixels + 1 + plan.pixels;
  const Index rows = (plan.row_block + plan.more_rows) * plan.stride[0];
  plan.copy_elements = ceil_div(plan.image_block * rows * plan.row_elements, 32) * 32;
}

// ---- Running

struct GradTensors {
  const BFloat16* input;
  const BFloat16* grad;
  float* grad_weight;
  float* grad_bias;
};

// Where the pixels of a unit are.
struct PixelTables {
  PixelPointer* input;
  PixelPointer* grad;
};

// A worker's memory.
struct GradBuffers {
  BFloat16* copy;
  BFloat16* input;
  BFloat16* grad;
  PixelTables now, next;
};

struct GradUnit {
  Index image, images, row, rows;
};

// Blocks that a chunk multiplies.
struct GradBlocks {
  Index begin, end;                // of output channels
  Index column_begin, column_end;  // of channels

  GradBlocks(const PairGradPlan& plan, Index split)
      : begin(plan.split_begin(split / plan.column_splits)),
        end(plan.split_begin(split / plan.column_splits + 1)),
        column_begin(plan.column_begin(split % plan.column_splits)),
        column_end(plan.column_begin(split % plan.column_splits + 1)) {}
};

GradUnit grad_unit_at(const PairGradPlan& plan, Index index) {
  GradUnit unit;
  unit.image = index / plan.row_blocks * plan.image_block;
  unit.images = std::min(plan.image_block, plan.images - unit.image);
  unit.row = index % plan.row_blocks * plan.row_block;
  unit.rows = std::min(plan.row_block, plan.rows - unit.row);
  return unit;
}

// Rows with zeros around them, so that the runs of all their pixels lie inside.
void copy_run_rows(const PairGradPlan& plan, const GradUnit& unit, const BFloat16* input,
                   BFloat16* to) {
  const Index rows = (plan.row_block + plan.more_rows) * plan.stride[0];
  const Index columns = plan.row_elements / plan.channels;
  const Index begin = std::clamp<Index>(-plan.first_column, 0, columns);
  const Index end = std::clamp<Index>(plan.width - plan.first_column, begin, columns);
  auto clear = [](BFloat16* p, Index count) {
    std::memset(static_cast<void*>(p), 0, static_cast<std::size_t>(count) * sizeof(BFloat16));
  };
  for (Index n = 0; n < unit.images; ++n)
    for (Index r = 0; r < rows; ++r, to += plan.row_elements) {
      const Index row = unit.row * plan.stride[0] + plan.first_row + r;
      if (row < 0 || row >= plan.height) {
        clear(to, plan.row_elements);
        continue;
      }
      const BFloat16* from = input + (((unit.image + n) * plan.height + row) * plan.width +
                                      plan.first_column + begin) *
                                         plan.channels;
      clear(to, begin * plan.channels);
      std::memcpy(to + begin * plan.channels, from,
                  static_cast<std::size_t>((end - begin) * plan.channels) * sizeof(BFloat16));
      clear(to + end * plan.channels, (columns - end) * plan.channels);
    }
}

// Pointers to the pixels of one plane; null in padding.
void find_input_pixels(const PairGradPlan& plan, const GradUnit& unit, const GradPlane& plane,
                       const GradTensors& tensors, const BFloat16* copy, PixelPointer* pixels) {
  std::fill_n(pixels, plan.input_pixels + 1, nullptr);
  const Index copied_rows = (plan.row_block + plan.more_rows) * plan.stride[0];
  for (Index n = 0; n < unit.images; ++n)
    for (Index r = 0; r < unit.rows + plan.more_rows; ++r) {
      const Index at = n * plan.image_pitch() + r * plan.pitch;
      const Index count = std::min(plan.pitch, plan.input_pixels + 1 - at);
      if (plan.runs) {
        const BFloat16* row =
            copy + (n * copied_rows + r * plan.stride[0] + plane.row) * plan.row_elements;
        for (Index c = 0; c < count; ++c) pixels[at + c] = row + c * plan.stride[1] * plan.channels;
        continue;
      }
      const Index row = (unit.row + r) * plan.stride[0] + plane.row + plan.first_row;
      if (row < 0 || row >= plan.height) continue;
      const BFloat16* from =
          tensors.input + ((unit.image + n) * plan.height + row) * plan.width * plan.channels;
      for (Index c = 0; c < count; ++c) {
        const Index column = c * plan.stride[1] + plane.column + plan.first_column;
        if (column >= 0 && column < plan.width) pixels[at + c] = from + column * plan.channels;
      }
    }
}

void find_grad_pixels(const PairGradPlan& plan, const GradUnit& unit, const GradTensors& tensors,
                      PixelPointer* pixels) {
  std::fill_n(pixels, plan.pixels, nullptr);
  for (Index n = 0; n < unit.images; ++n)
    for (Index r = 0; r < unit.rows; ++r) {
      const BFloat16* from =
          tensors.grad +
          (((unit.image + n) * plan.rows + unit.row + r) * plan.columns) * plan.out_channels;
      PixelPointer* to = pixels + n * plan.image_pitch() + r * plan.pitch;
      for (Index c = 0; c < plan.columns; ++c) to[c] = from + c * plan.out_channels;
    }
}

void add_to_bias(const PixelPointer* pixels, Index count, Index begin, Index end, float* bias) {
  for (Index i = 0; i < count; ++i) {
    if (!pixels[i]) continue;
    for (Index c = begin; c < end; ++c) bias[c] += float_from_bfloat16(pixels[i][c].bits);
  }
}

// Some blocks of channels of all planes, as pairs of pixels.
void prepare_input(const PairGradPlan& plan, const PairUnit& unit_loops, const GradUnit& unit,
                   const GradTensors& tensors, const GradBuffers& buffers, const GradBlocks& blocks,
                   Index first_block) {
  PixelPairs pairs;
  pairs.pairs = plan.input_pixels / 2, pairs.group_pitch = plan.half_pitch();
  pairs.first_channel = first_block * kPairBlock;
  pairs.channels = std::min({plan.chunk_blocks * kPairBlock, plan.length - pairs.first_channel,
                             blocks.column_end * kPairBlock - pairs.first_channel});
  pairs.to = buffers.input;
  for (Index p = 0; p < plan.plane_count; ++p) {
    // One plane's pointers stay from chunk to chunk.
    if (plan.plane_count > 1 || (first_block == blocks.column_begin && !plan.ahead))
      find_input_pixels(plan, unit, plan.planes()[p], tensors, buffers.copy, buffers.now.input);
    for (Index phase = 0; phase < plan.phases; ++phase) {
      pairs.pixels = buffers.now.input + phase;
      unit_loops.columns(pairs);
      pairs.to += plan.chunk_blocks * 2 * plan.half_pitch();
    }
  }
}

// What follows the products of the blocks of channels from `first` on: the unit's other blocks, or
// the next unit if there is one.
void fetch_ahead(const PairGradPlan& plan, const GradBuffers& buffers, const PixelPairs& grads,
                 const GradBlocks& blocks, Index first, bool more, PairSums& job) {
  const Index last_channel = std::min(blocks.column_end * kPairBlock, plan.length);
  const Index chunk = plan.chunk_blocks * kPairBlock;
  auto input = [&](const PixelPointer* pixels, Index channel) -> UpcomingPixels {
    return {pixels, plan.input_pixels, channel, std::min(chunk, last_channel - channel)};
  };
  const Index next = (first + plan.chunk_blocks) * kPairBlock;
  job.upcoming[0] = job.upcoming[1] = {};
  if (next < last_channel) {
    job.upcoming[0] = input(buffers.now.input, next);
  } else if (more) {
    job.upcoming[0] = {buffers.next.grad, plan.pixels, grads.first_channel, grads.channels};
    job.upcoming[1] = input(buffers.next.input, blocks.column_begin * kPairBlock);
  }
}

// `more`: buffers.next has the tables of a unit that comes after.
void add_grad_unit(const PairGradPlan& plan, const PairUnit& unit_loops, const GradUnit& unit,
                   const GradTensors& tensors, const GradBuffers& buffers, const GradBlocks& blocks,
                   bool accumulate, bool more, float* part, float* bias) {
  const Index begin = blocks.begin, end = blocks.end;
  const Index first_channel = begin * kPairBlock;
  const Index last_channel = std::min(end * kPairBlock, plan.out_channels);
  if (!plan.ahead) find_grad_pixels(plan, unit, tensors, buffers.now.grad);
  PixelPairs grads;
  grads.pixels = buffers.now.grad, grads.pairs = plan.pixels / 2;
  grads.first_channel = first_channel, grads.channels = last_channel - first_channel;
  grads.to = buffers.grad, grads.group_pitch = plan.grad_pitch();
  unit_loops.rows(grads);
  if (plan.bias && blocks.column_begin == 0)
    add_to_bias(buffers.now.grad, plan.pixels, first_channel, last_channel, bias);
  if (plan.runs) copy_run_rows(plan, unit, tensors.input, buffers.copy);

  PairSums job;
  job.a = buffers.grad, job.a_half = grads.group_pitch;
  job.b_half = plan.half_pitch();
  job.taps = plan.offsets(), job.tap_count = plan.taps;
  job.steps = plan.pixels / kPairStep;
  job.accumulate = accumulate;
  job.sums_row = plan.block_sums();
  if (plan.direct) {
    job.sums_row = kPairBlock * plan.length;
    job.sums_block = kPairBlock, job.sums_pitch = plan.length;
  }
  for (Index first = blocks.column_begin; first < blocks.column_end; first += plan.chunk_blocks) {
    prepare_input(plan, unit_loops, unit, tensors, buffers, blocks, first);
    if (plan.ahead) fetch_ahead(plan, buffers, grads, blocks, first, more, job);
    job.b = buffers.input;
    job.sums = part + begin * job.sums_row;
    if (plan.groups == 1) {
      job.sums += first * plan.taps * job.sums_block;
      job.row_blocks = end - begin;
      job.column_blocks = std::min(plan.chunk_blocks, blocks.column_end - first);
      unit_loops.sums(job);
      continue;
    }
    job.row_blocks = 1, job.column_blocks = plan.channel_blocks;
    for (Index block = begin; block < end; ++block) {
      job.a = buffers.grad + (block - begin) * 2 * job.a_half;
      job.b = buffers.input + plan.first_block(block) * 2 * job.b_half;
      unit_loops.sums(job);
      job.sums += plan.block_sums();
    }
  }
}

// Adds the parts in their order and stores what belongs to the weight.
void combine_block(const PairGradPlan& plan, const float* parts, Index block, float* weight) {
  const Index reads = plan.group_reads();
  const Index end = std::min((block + 1) * kPairBlock, plan.out_channels);
  for (Index o = block * kPairBlock; o < end; ++o) {
    const Index base = o / plan.group_writes() * reads;  // the group's first channel
    for (Index b = 0; b < plan.channel_blocks; ++b) {
      const Index channel = (plan.first_block(block) + b) * kPairBlock;
      const Index first = std::max(channel, base),
                  last = std::min(channel + kPairBlock, base + reads);
      for (Index tap = 0; tap < plan.taps; ++tap) {
        const float* from = parts + block * plan.block_sums() +
                            (b * plan.taps + tap) * kPairBlock * kPairBlock +
                            o % kPairBlock * kPairBlock - channel;
        float* to = weight + (o * plan.taps + tap) * reads - base;
        for (Index c = first; c < last; ++c) to[c] = from[c];
        for (Index part = 1; part < plan.parts; ++part) {
          from += plan.part_floats();
          for (Index c = first; c < last; ++c) to[c] += from[c];
        }
      }
    }
  }
}

void run_pair_grad(const KernelArgs& args, const PairUnit& unit_loops) {
  const PairGradPlan& plan = *reinterpret_cast<const PairGradPlan*>(args.plan);
  GradTensors tensors;
  tensors.input = args.inputs[0].as<const BFloat16>();
  tensors.grad = args.inputs[1].as<const BFloat16>();
  tensors.grad_weight = args.outputs[0].as<float>();
  tensors.grad_bias = plan.bias ? args.outputs[1].as<float>() : nullptr;
  if (plan.units == 0) {
    std::fill_n(tensors.grad_weight, plan.out_channels * plan.taps * plan.group_reads(), 0.0f);
    if (plan.bias) std::fill_n(tensors.grad_bias, plan.out_channels, 0.0f);
    return;
  }
  float* bias_parts = reinterpret_cast<float*>(args.scratch) + plan.sum_floats();
  float* parts = plan.direct ? tensors.grad_weight : reinterpret_cast<float*>(args.scratch);
  auto* elements =
      reinterpret_cast<BFloat16*>(bias_parts + plan.parts * plan.blocks() * kPairBlock);
  const Index worker_elements = plan.copy_elements + plan.input_elements + plan.grad_elements;
  auto* tables = reinterpret_cast<PixelPointer*>(elements + args.threads * worker_elements);
  auto find_pixels = [&](Index u, const PixelTables& to) {
    const GradUnit unit = grad_unit_at(plan, u);
    find_grad_pixels(plan, unit, tensors, to.grad);
    find_input_pixels(plan, unit, plan.planes()[0], tensors, nullptr, to.input);
  };
  auto run_chunk = [&](std::int64_t chunk, int worker) {
    const Index splits = plan.splits * plan.column_splits, index = chunk / splits;
    const GradBlocks blocks(plan, chunk % splits);
    GradBuffers buffers;
    buffers.copy = elements + worker * worker_elements;
    buffers.input = buffers.copy + plan.copy_elements;
    buffers.grad = buffers.input + plan.input_elements;
    buffers.now.input = tables + worker * (1 + plan.ahead) * plan.table_entries;
    buffers.next.input = buffers.now.input + plan.table_entries;
    for (PixelTables* t : {&buffers.now, &buffers.next}) t->grad = t->input + plan.input_pixels + 1;
    float* bias = bias_parts + index * plan.blocks() * kPairBlock;
    if (blocks.column_begin == 0)
      std::fill(bias + blocks.begin * kPairBlock, bias + blocks.end * kPairBlock, 0.0f);
    const Index first = plan.units * index / plan.parts;
    const Index end = plan.units * (index + 1) / plan.parts;
    if (plan.ahead) find_pixels(first, buffers.now);
    for (Index u = first; u < end; ++u) {
      const bool more = plan.ahead && u + 1 < end;
      if (more) find_pixels(u + 1, buffers.next);
      add_grad_unit(plan, unit_loops, grad_unit_at(plan, u), tensors, buffers, blocks, u != first,
                    more, parts + index * plan.part_floats(), bias);
      if (more) std::swap(buffers.now, buffers.next);
    }
  };
  parallel_for(args.threads, plan.parts * plan.splits * plan.column_splits, run_chunk);
  auto combine = [&](std::int64_t block, int) {
    combine_block(plan, parts, block, tensors.grad_weight);
  };
  if (!plan.direct) parallel_for(args.threads, plan.blocks(), combine);
  if (!plan.bias) return;
  std::copy_n(bias_parts, plan.out_channels, tensors.grad_bias);
  for (Index part = 1; part < plan.parts; ++part)
    for (Index c = 0; c < plan.out_channels; ++c)
      tensors.grad_bias[c] += bias_parts[part * plan.blocks() * kPairBlock + c];
}

template <const PairUnit& kUnit>
void run_grad(const KernelArgs& args) noexcept {
  run_pair_grad(args, kUnit);
}

}  // namespace

// What is fetched ahead has to stay beside what is multiplied; AMX visits its sums at a greater
// price, and its processors have larger caches.
const PairGradRun kPairGradPortable = {run_grad<portable::kPairUnit>, kLeastUnitPixels, false};
#if PYCNN_HAVE_AVX512
const PairGradRun kPairGradAvx512 = {run_grad<avx512_bf16::kPairUnit>, kLeastUnitPixels, false};
const PairGradRun kPairGradAmx = {run_grad<amx::kPairUnit>, kAmxUnitPixels, true};
#endif

Kernel make_pair_weight_grad_kernel(const WeightGradProblem& p, int threads,
                                    const PairGradRun& entry) {
  PairGradPlan plan;
  plan_shape(p, plan);
  const GradTaps taps = find_taps(p, plan);
  plan.taps = static_cast<Index>(taps.shift.size());
  plan.plane_count = static_cast<Index>(taps.planes.size());
  for (const Index shift : taps.shift) plan.phases = std::max(plan.phases, 1 + shift % 2);
  plan_units(plan, entry.unit_pixels);
  plan_parts(plan, entry.splits_both, std::max(threads, 1));
  plan.direct = is_direct(plan);
  plan_operands(taps, plan);
  std::vector<Index> offsets;
  for (std::size_t t = 0; t < taps.shift.size(); ++t) {
    const Index copy = taps.plane[t] * plan.phases + taps.shift[t] % 2;
    offsets.push_back(copy * plan.chunk_blocks * 2 * plan.half_pitch() +
                      taps.shift[t] / 2 * kPairBlock);
  }

  Kernel kernel;
  kernel.run = entry.run;
  const Index workers = std::max(threads, 1);
  const Index floats = plan.sum_floats() + plan.parts * plan.blocks() * kPairBlock;
  kernel.scratch_bytes =
      static_cast<std::size_t>(floats) * sizeof(float) +
      static_cast<std::size_t>(workers *
                               (plan.copy_elements + plan.input_elements + plan.grad_elements)) *
          sizeof(BFloat16) +
      static_cast<std::size_t>(workers * (1 + plan.ahead) * plan.table_entries) *
          sizeof(PixelPointer);
  append_to_plan(kernel.plan, &plan, 1);
  append_to_plan(kernel.plan, taps.planes.data(), taps.planes.size());
  append_to_plan(kernel.plan, offsets.data(), offsets.size());
  return kernel;
}

}  // namespace pycnn::cpu
