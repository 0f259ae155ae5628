#include "backends/cpu/conv2d_bfloat16.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/conv2d_bfloat16_plan.h"
#include "core/bfloat16_units.h"
#include "core/half.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// The inner loops of one unit.
struct PairLoops {
  const PairUnit* unit;
  const BatchNormFunctions<BFloat16>* norm;
};

const PairPlan& pair_plan_of(const KernelArgs& args) {
  return *reinterpret_cast<const PairPlan*>(args.plan);
}

// ---- Packing

// Where an element of the weight lies: what is read through it, what is written, and the tap.
Index weight_at(const PairPlan& plan, Index read, Index write, const PairTap& tap) {
  const Index taps = plan.kernel_size[0] * plan.kernel_size[1];
  const Index t = tap.row * plan.kernel_size[1] + tap.column;
  auto within = [&](Index channel, Index group) {
    return plan.groups == 1 ? channel : channel % group;
  };
  if (plan.transposed)
    return (read * taps + t) * plan.group_writes + within(write, plan.group_writes);
  return (write * taps + t) * plan.group_reads + within(read, plan.group_reads);
}

// A step of one tap without groups: a rectangle of the weight, elements by output channels.
bool is_rectangle(const PairPlan& plan, const PairStepPlan& step) {
  return plan.groups == 1 && plan.merged_taps == 1 && step.skip == 0 &&
         plan.step_elements() <= kPairStep && !plan.odd;
}

const float* rectangle_at(const PairPlan& plan, const float* weight, const PairTap* taps,
                          const PairStepPlan& step, Index channel) {
  return weight + weight_at(plan, step.first, channel, taps[step.tap]);
}

void pack_rectangle(const PairPlan& plan, const PairUnit& unit, const float* from,
                    const float* upcoming, Index first, Index channel, BFloat16* to) {
  PairWeights job;
  job.pairs = plan.pairs, job.to = to;
  job.columns = std::clamp<Index>(plan.out_channels - channel, 0, 16);
  job.elements = std::min(2 * plan.pairs, plan.channels - first);
  const Index pixel = plan.kernel_size[0] * plan.kernel_size[1] *
                      (plan.transposed ? plan.group_writes : plan.group_reads);
  job.column_pitch = plan.transposed ? 1 : pixel;
  job.element_pitch = plan.transposed ? pixel : 1;
  job.from = from, job.upcoming = upcoming;
  unit.pack(job);
}

// Any step, element by element.
void pack_elements(const PairPlan& plan, const float* weight, const PairTap* taps,
                   const PairStepPlan& step, Index channel, BFloat16* to) {
  const Index run =
      plan.layout == PairLayout::kBlocks ? plan.channels : plan.pixel * plan.merged_taps;
  const Index pixel = plan.layout == PairLayout::kBlocks ? plan.channels : plan.pixel;
  std::fill_n(to, plan.half(), BFloat16{});
  for (Index element = step.skip; element < plan.step_elements(); ++element) {
    const Index position = step.first + element, read = position % pixel;
    if (position >= run || read >= plan.channels) continue;
    // The last pair of an odd step meets the element before its own once more.
    const Index e = element + (element == plan.step_elements() - 1 ? plan.odd : 0);
    const PairTap& tap = taps[step.tap + position / pixel];
    const Index group = read / plan.group_reads;
    const Index begin = std::max(channel, group * plan.group_writes);
    const Index end = std::min({channel + 16, (group + 1) * plan.group_writes, plan.out_channels});
    for (Index write = begin; write < end; ++write)
      to[(e / 2 * 16 + write - channel) * 2 + e % 2] = {
          bfloat16_from_float(weight[weight_at(plan, read, write, tap)])};
  }
}

// A step of a block of output channels.
struct BlockStep {
  Index block = -1, step = 0;
};

// Packs its halves; what comes soon (a block of -1: nothing does) is fetched meanwhile.
void pack_step(const PairPlan& plan, const PairUnit& unit, const float* weight,
               const PairPass& pass, const BlockStep& at, const BlockStep& soon, BFloat16* to) {
  const PairTap* taps = plan.taps() + pass.tap;
  auto step_of = [&](const BlockStep& which) -> const PairStepPlan& {
    const Index own = plan.steps_differ ? which.block * pass.steps + which.step : which.step;
    return plan.steps()[pass.step + own];
  };
  const PairStepPlan& step = step_of(at);
  for (Index half = 0; half < 2; ++half, to += plan.half()) {
    const Index channel = at.block * kPairBlock + half * 16;
    if (!is_rectangle(plan, step)) {
      pack_elements(plan, weight, taps, step, channel, to);
      continue;
    }
    const bool empty = channel >= plan.out_channels;
    const float* upcoming = nullptr;
    if (soon.block >= 0 && !empty)
      upcoming =
          rectangle_at(plan, weight, taps, step_of(soon), soon.block * kPairBlock + half * 16);
    pack_rectangle(plan, unit, empty ? weight : rectangle_at(plan, weight, taps, step, channel),
                   upcoming, step.first, channel, to);
  }
}

// The steps of all blocks of a pass in the order in which the weight lies in memory: so each of the
// rows that are read together goes on where it was.
struct MemoryOrder {
  Index blocks, steps, taps;
  bool transposed;

  MemoryOrder(const PairPlan& plan, const PairPass& pass)
      : blocks(plan.blocks()), steps(pass.steps), taps(1), transposed(plan.transposed != 0) {
    // Of the taps of a block of channels.
    if (plan.layout == PairLayout::kBlocks && !plan.steps_differ)
      taps = pass.steps / ceil_div(plan.channels, kPairStep);
  }

  Index count() const { return blocks * steps; }
  BlockStep at(Index i) const {
    const Index reads = steps / taps;
    if (transposed) {
      const Index block = i % blocks, tap = i / blocks % taps, read = i / blocks / taps;
      return {block, read * taps + tap};
    }
    const Index read = i % reads, tap = i / reads % taps, block = i / reads / taps;
    return {block, read * taps + tap};
  }
};

constexpr Index kFetchedSteps = 4;                    // ahead
constexpr Index kLeastPacked = 8, kMostPacked = 144;  // steps at a time
constexpr Index kPackedShares = 16;

void pack_pairs(const KernelArgs& args, const PairUnit& unit) {
  const PairPlan& plan = pair_plan_of(args);
  const float* weight = args.inputs[0].as<const float>();
  BFloat16* packed = args.outputs[0].as<BFloat16>();
  for (Index p = 0; p < plan.pass_count; ++p) {
    const PairPass& pass = plan.passes()[p];
    const MemoryOrder order(plan, pass);
    auto pack_range = [&](std::int64_t begin, std::int64_t end) {
      for (Index i = begin; i < end; ++i) {
        const BlockStep at = order.at(i);
        const BlockStep soon = i + kFetchedSteps < end ? order.at(i + kFetchedSteps) : BlockStep{};
        pack_step(plan, unit, weight, pass, at, soon,
                  packed + pass.weights + 2 * (at.block * pass.steps + at.step) * plan.half());
      }
    };
    const Index grain = std::clamp(order.count() / kPackedShares, kLeastPacked, kMostPacked);
    parallel_ranges(args.threads, order.count(), grain, pack_range);
  }
}

// A part of the weight that is packed at a time where nobody has packed the whole.
struct WeightPart {
  Index block = 0, blocks = 0;  // of output channels
  Index step = 0, steps = 0;
};

// Where it lies in the weight.
UpcomingRows rows_of(const PairPlan& plan, const float* weight, const WeightPart& part) {
  if (part.steps == 0) return {};
  const Index channel = part.block * kPairBlock, element = part.step * kPairStep;
  const Index channels = std::min(part.blocks * kPairBlock, plan.out_channels - channel);
  const Index elements = part.steps * kPairStep;
  if (plan.transposed)
    return {weight + element * plan.out_channels + channel, elements, channels, plan.out_channels};
  return {weight + channel * plan.channels + element, channels, elements, plan.channels};
}

// What comes soon, if need be of the `next` part, is fetched meanwhile.
void pack_part(const PairPlan& plan, const PairUnit& unit, const float* weight,
               const WeightPart& part, const WeightPart& next, BFloat16* packed) {
  const PairPass& pass = plan.passes()[0];
  for (Index s = 0; s < part.steps; ++s)
    for (Index b = 0; b < part.blocks; ++b) {
      BlockStep soon;
      if (!unit.pack_fetches) {
        // Its products do.
      } else if (plan.transposed) {
        if (s < next.steps && b < next.blocks) soon = {next.block + b, next.step + s};
      } else if (s + kFetchedSteps < part.steps) {
        soon = {part.block + b, part.step + s + kFetchedSteps};
      } else if (const Index later = s + kFetchedSteps - part.steps; later < next.steps) {
        soon = {next.block + b, next.step + later};
      }
      pack_step(plan, unit, weight, pass, {part.block + b, part.step + s}, soon,
                packed + 2 * (b * part.steps + s) * plan.half());
    }
}

// ---- Copies of the input

struct PairChunk {
  Index image, images, row, rows;  // rows are those of a pass
  Index block, block_end;
};

PairChunk pair_chunk_at(const PairPlan& plan, Index index) {
  const Index row_block = index % plan.row_blocks;
  const Index image_block = index / plan.row_blocks % plan.image_blocks;
  const Index split = index / (plan.row_blocks * plan.image_blocks);
  PairChunk chunk;
  chunk.image = image_block * plan.image_block;
  chunk.images = std::min(plan.image_block, plan.images - chunk.image);
  chunk.row = row_block * plan.row_block;
  chunk.rows = plan.row_block;
  chunk.block = plan.blocks() * split / plan.splits;
  chunk.block_end = plan.blocks() * (split + 1) / plan.splits;
  return chunk;
}

void clear(BFloat16* to, Index count) {
  std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(count) * sizeof(BFloat16));
}
void copy(const BFloat16* from, Index count, BFloat16* to) {
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(BFloat16));
}

// The columns [begin, end) of a copied row that lie in the image; column c is the input's
// c * step + first.
struct CopiedColumns {
  Index begin, end, first, step;

  CopiedColumns(const PairPlan& plan, Index first_column, Index column_step)
      : first(first_column), step(column_step) {
    begin = std::min(plan.columns, first < 0 ? ceil_div(-first, step) : 0);
    end = first < plan.width ? std::min(plan.columns, ceil_div(plan.width - first, step)) : 0;
    end = std::max(begin, end);
  }
};

// One row of one plane, all blocks of channels; `row` is null in padding.
void copy_to_blocks(const PairPlan& plan, const CopiedColumns& columns, const BFloat16* row,
                    BFloat16* to) {
  const Index blocks = ceil_div(plan.channels, kPairStep), whole = plan.channels / kPairStep;
  for (Index b = 0; b < blocks; ++b) {
    BFloat16* block = to + b * plan.block_pitch;
    if (!row) {
      clear(block, plan.row_pitch);
      continue;
    }
    clear(block, columns.begin * kPairStep);
    clear(block + columns.end * kPairStep, (plan.columns - columns.end) * kPairStep);
  }
  if (!row) return;
  const Index rest = plan.channels - whole * kPairStep;
  for (Index c = columns.begin; c < columns.end; ++c) {
    const BFloat16* from = row + (c * columns.step + columns.first) * plan.channels;
    BFloat16* pixel = to + c * kPairStep;
    for (Index b = 0; b < whole; ++b, from += kPairStep, pixel += plan.block_pitch)
      std::memcpy(pixel, from, kPairStep * sizeof(BFloat16));
    if (rest > 0) {
      copy(from, rest, pixel);
      clear(pixel + rest, kPairStep - rest);
    }
  }
}

// All rows of an image's copy, the first of which is the input's `first`.
void copy_as_runs(const PairPlan& plan, const PairUnit& unit, const CopiedColumns& columns,
                  const BFloat16* image, Index first, Index rows, BFloat16* to) {
  Index begin = std::clamp<Index>(-first, 0, rows);
  Index end = std::clamp<Index>(plan.height - first, begin, rows);
  if (columns.begin == columns.end) begin = end = 0;
  clear(to, begin * plan.row_pitch);
  clear(to + end * plan.row_pitch, (rows - end) * plan.row_pitch);
  const Index before = columns.begin * plan.pixel, after = columns.end * plan.pixel;
  for (Index r = begin; r < end; ++r) {
    clear(to + r * plan.row_pitch, before);
    clear(to + r * plan.row_pitch + after, plan.row_pitch - after);
  }
  if (begin == end) return;
  PixelSpread job;
  job.from_row = plan.width * plan.channels;
  job.from =
      image + (first + begin) * job.from_row + (columns.begin + columns.first) * plan.channels;
  job.rows = end - begin, job.pixels = columns.end - columns.begin;
  job.channels = plan.channels;
  job.to = to + begin * plan.row_pitch + before, job.to_row = plan.row_pitch;
  if (plan.pixel != plan.channels) return unit.spread(job);
  for (Index r = begin; r < end; ++r, job.from += job.from_row, job.to += job.to_row)
    copy(job.from, job.pixels * plan.pixel, job.to);
}

void copy_chunk(const PairPlan& plan, const PairUnit& unit, const PairChunk& chunk,
                const BFloat16* input, BFloat16* copy_to) {
  const Index rows = plan.image_pitch / plan.row_pitch;
  const Index first = chunk.row * plan.stride[0] + plan.first_row;
  auto image_at = [&](Index n) {
    return input + (chunk.image + n) * plan.height * plan.width * plan.channels;
  };
  if (plan.layout == PairLayout::kRuns) {
    const CopiedColumns columns(plan, plan.first_column, 1);
    for (Index n = 0; n < chunk.images; ++n)
      copy_as_runs(plan, unit, columns, image_at(n), first, rows, copy_to + n * plan.image_pitch);
    return;
  }
  // A row of the copy is every stride-th of the input, where planes hold the others.
  for (Index p = 0; p < plan.plane_count; ++p) {
    const PairPlane& plane = plan.planes()[p];
    const CopiedColumns columns(plan, plane.column + plan.first_column, plan.stride[1]);
    for (Index n = 0; n < chunk.images; ++n) {
      BFloat16* to = copy_to + p * plan.plane_pitch + n * plan.image_pitch;
      for (Index r = 0; r < rows; ++r, to += plan.row_pitch) {
        const Index row = first + r * plan.stride[0] + plane.row;
        const bool inside = row >= 0 && row < plan.height && columns.begin < columns.end;
        copy_to_blocks(plan, columns,
                       inside ? image_at(n) + row * plan.width * plan.channels : nullptr, to);
      }
    }
  }
}

// ---- Running

struct PairTensors {
  const BFloat16* input;
  const BFloat16* weights;
  const float* bias;  // filled up with zeros to whole blocks
  const BFloat16* residual;
  const BFloat16* mask;
  BFloat16* output;
  Index channels;  // of the output
  Index pitch;     // from one of its pixels to the next
};

// Which pixel each row of the operand is: the two tables of a PairTiles.
struct RowTable {
  Index* halves;
  Index* rows;
  Index count = 0;  // halves

  // A half whose first row lies at `at`; its rows are nobody's yet.
  Index* add(Index at) {
    halves[count] = at;
    Index* own = rows + count++ * kPairRows;
    std::fill_n(own, kPairRows, Index{-1});
    return own;
  }
  // The first `end` halves once more, for other images.
  void add_again(Index end, Index input, Index output) {
    for (Index half = 0; half < end; ++half) {
      const Index* from = rows + half * kPairRows;
      Index* to = rows + count * kPairRows;
      for (Index i = 0; i < kPairRows; ++i) to[i] = from[i] < 0 ? from[i] : from[i] + output;
      halves[count++] = halves[half] + input;
    }
  }
  // Whole tiles: the last half is computed twice.
  void complete() {
    if (count % 2 == 1) add(halves[count - 1]);
  }
};

void add_in_place(const PairPlan& plan, const PairChunk& chunk, Index rows, Index pitch,
                  RowTable& table) {
  const Index step = plan.rows_of_half(rows);
  for (Index m = chunk.row; m < chunk.row + rows; m += step) {
    // Not beyond the tensor: rather some rows of the half before once more.
    const Index first = std::max<Index>(0, std::min(m, plan.height - kPairRows));
    Index* own = table.add(first * plan.pixel);
    for (Index i = m; i < std::min(m + step, chunk.row + rows); ++i) own[i - first] = i * pitch;
  }
}

void add_image(const PairPlan& plan, const PairPass& pass, Index rows, Index input, Index output,
               Index pitch, RowTable& table) {
  const Index row_step = plan.out_stride[0] * plan.out_columns * pitch;
  const Index column_step = plan.out_stride[1] * pitch;
  if (plan.counts_through(rows, pass)) {
    const Index count = plan.counted_through(rows, pass), step = plan.rows_of_half(count);
    Index* const own = table.rows + table.count * kPairRows;
    for (Index at = 0; at < count; at += step) table.add(input + at * plan.row_step());
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < pass.columns; ++c) {
        const Index at = r * plan.through() + c;
        own[at / step * kPairRows + at % step] = output + r * row_step + c * column_step;
      }
    return;
  }
  const Index input_row = plan.layout == PairLayout::kRuns ? plan.stride[0] : 1;
  const Index step = plan.rows_of_half(pass.columns);
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < pass.columns; c += step) {
      Index* own = table.add(input + r * input_row * plan.row_pitch + c * plan.row_step());
      for (Index i = 0; i < std::min(step, pass.columns - c); ++i)
        own[i] = output + r * row_step + (c + i) * column_step;
    }
}

// Of no tiles where the chunk has no rows of the pass.
PairTiles tiles_of(const PairPlan& plan, const PairUnit& unit, const PairTensors& tensors,
                   const PairChunk& chunk, const PairPass& pass, const BFloat16* input,
                   RowTable table) {
  const Index rows = std::min(chunk.rows, pass.rows - chunk.row);
  if (rows <= 0) return {};
  if (plan.layout == PairLayout::kInPlace) {
    add_in_place(plan, chunk, rows, tensors.pitch, table);
  } else {
    const Index first =
        chunk.image * plan.out_rows + pass.first_row + chunk.row * plan.out_stride[0];
    add_image(plan, pass, rows, 0, (first * plan.out_columns + pass.first_column) * tensors.pitch,
              tensors.pitch, table);
    const Index image = plan.out_rows * plan.out_columns * tensors.pitch;
    for (Index n = 1, halves = table.count; n < chunk.images; ++n)
      table.add_again(halves, n * plan.image_pitch, n * image);
  }
  table.complete();
  PairTiles job;
  job.input = input, job.input_row = plan.row_step();
  job.halves = table.halves, job.rows = table.rows, job.tiles = table.count / 2;
  job.steps = plan.offsets() + pass.step, job.step_count = pass.steps;
  job.step_pitch = plan.steps_differ ? pass.steps : 0;
  job.pairs = plan.pairs, job.odd = plan.odd;
  job.weights = tensors.weights + pass.weights;
  job.block_begin = chunk.block, job.block_end = chunk.block_end;
  job.channels = tensors.channels;
  // In place, a tile's few rows stay near while all weights pass by; else the weights of a block
  // stay while the copy passes by.
  job.blocks_first = plan.layout == PairLayout::kInPlace;
  job.bias = tensors.bias;
  job.output = tensors.output, job.residual = tensors.residual, job.mask = tensors.mask;
  job.relu = plan.activation == ActivationKind::kRelu;
  job.activation = job.relu ? nullptr : forward_of(*unit.activation, plan.activation);
  job.slope = plan.slope;
  return job;
}

void clear_output(const PairPlan& plan, BFloat16* output, int threads) {
  if (!plan.zero_fill && plan.pass_count > 0) return;
  const Index count = plan.images * plan.out_rows * plan.out_columns * plan.out_channels;
  parallel_ranges(threads, count, 64 * 1024, [&](std::int64_t begin, std::int64_t end) {
    clear(output + begin, end - begin);
  });
}

// The kernel's scratch: the bias, what is measured, and of each worker a packed part and the sums
// of its blocks where the weight comes as it is, the copy and the table.
struct PairScratch {
  float* bias;
  float* values;
  BFloat16* packed;
  BFloat16* copies;
  Index* tables;

  PairScratch(const KernelArgs& args, const PairPlan& plan, bool unpacked) {
    const Index parts = unpacked ? args.threads : 0;
    bias = reinterpret_cast<float*>(args.scratch);
    values = bias + plan.blocks() * kPairBlock + plan.measure.floats();
    packed = reinterpret_cast<BFloat16*>(values + parts * plan.share_values());
    copies = packed + parts * plan.part_elements();
    tables = reinterpret_cast<Index*>(copies + args.threads * plan.copy_elements);
  }

  RowTable table(const PairPlan& plan, int worker) const {
    Index* own = tables + worker * plan.table_entries;
    return {own, own + plan.table_entries / (2 + kPairBlock) * 2};
  }
};

// Fills in the bias.
PairTensors tensors_of(const KernelArgs& args, const PairPlan& plan, float* bias) {
  std::fill_n(bias, plan.blocks() * kPairBlock, 0.0f);
  auto optional = [&](int i) -> const TensorView* {
    return i < 0 ? nullptr : &args.inputs[static_cast<std::size_t>(i)];
  };
  if (const TensorView* view = optional(plan.extra.bias))
    std::copy_n(view->as<const float>(), plan.out_channels, bias);
  const TensorView *residual = optional(plan.extra.residual), *mask = optional(plan.extra.mask);
  return {args.inputs[0].as<const BFloat16>(),
          nullptr,
          bias,
          residual ? residual->as<const BFloat16>() : nullptr,
          mask ? mask->as<const BFloat16>() : nullptr,
          args.outputs[0].as<BFloat16>(),
          plan.out_channels,
          args.outputs[0].pitch()};
}

// Has some channels of a finished part measured if that is wanted: rows of the pixels of a pass,
// with those of the other passes between them, of some images.
void measure_part(const PairPlan& plan, const Measure& measure, Index part, Index first,
                  Index channels) {
  if (!measure.wanted()) return;
  const Index image = part / plan.row_blocks * plan.image_block;
  const Index row = part % plan.row_blocks * plan.row_block;
  const Index begin = std::min(row * plan.out_stride[0], plan.out_rows);
  const Index end = std::min((row + plan.row_block) * plan.out_stride[0], plan.out_rows);
  MeasuredPart measured(measure, part, first, channels);
  for (Index n = image; n < std::min(image + plan.image_block, plan.images); ++n)
    measured.add((n * plan.out_rows + begin) * plan.out_columns, (end - begin) * plan.out_columns);
}

void run_pairs(const KernelArgs& args, const PairLoops& loops) {
  const PairUnit& unit = *loops.unit;
  const PairPlan& plan = pair_plan_of(args);
  const PairScratch scratch(args, plan, false);
  PairTensors tensors = tensors_of(args, plan, scratch.bias);
  tensors.weights = args.inputs[1].as<const BFloat16>();
  clear_output(plan, tensors.output, args.threads);
  const Measure measure(plan.measure, args, loops.norm);
  if (plan.pass_count == 0) return measure.finish();  // no parts: nothing but zeros
  auto run_chunk = [&](std::int64_t index, int worker) {
    const PairChunk chunk = pair_chunk_at(plan, index);
    BFloat16* copied = scratch.copies + worker * plan.copy_elements;
    const BFloat16* input = copied;
    if (plan.layout != PairLayout::kInPlace)
      copy_chunk(plan, unit, chunk, tensors.input, copied);
    else if (plan.copy_elements > 0)
      copy(tensors.input, plan.height * plan.pixel, copied);
    else
      input = tensors.input;
    for (Index p = 0; p < plan.pass_count; ++p) {
      const PairTiles job = tiles_of(plan, unit, tensors, chunk, plan.passes()[p], input,
                                     scratch.table(plan, worker));
      if (job.tiles > 0) unit.tiles(job);
    }
    const Index first = chunk.block * kPairBlock;
    measure_part(plan, measure, index % (plan.image_blocks * plan.row_blocks), first,
                 std::min(chunk.block_end * kPairBlock, plan.out_channels) - first);
  };
  parallel_for(args.threads, plan.image_blocks * plan.row_blocks * plan.splits, run_chunk);
  measure.finish();
}

// The parts of a share of the weight: all blocks of some steps, then those of the next ones.
struct ShareParts {
  Index block, block_end, steps;
  Index part_blocks, part_steps;

  ShareParts(const PairPlan& plan, Index share)
      : block(share * plan.share_blocks),
        block_end(std::min(block + plan.share_blocks, plan.blocks())),
        steps(plan.passes()[0].steps),
        part_blocks(plan.part_blocks),
        part_steps(plan.part_steps) {}

  Index across() const { return ceil_div(block_end - block, part_blocks); }
  Index count() const { return across() * ceil_div(steps, part_steps); }
  WeightPart at(Index part) const {
    const Index first = block + part % across() * part_blocks;
    const Index step = part / across() * part_steps;
    return {first, std::min(part_blocks, block_end - first), step,
            std::min(part_steps, steps - step)};
  }
};

// The same tiles of later channels.
PairTiles from_channel(PairTiles job, Index channel) {
  job.bias += channel, job.output += channel, job.channels -= channel;
  if (job.residual) job.residual += channel;
  if (job.mask) job.mask += channel;
  return job;
}

// The weight as it is. Some blocks of output channels take a part of the sum after another: it is
// packed, and all rows multiply it while the next one comes near.
void run_pairs_unpacked(const KernelArgs& args, const PairLoops& loops) {
  const PairUnit& unit = *loops.unit;
  const PairPlan& plan = pair_plan_of(args);
  const PairScratch scratch(args, plan, true);
  const PairTensors tensors = tensors_of(args, plan, scratch.bias);
  const float* weight = args.inputs[1].as<const float>();
  const BFloat16* input = tensors.input;
  if (plan.copy_elements > 0) {
    copy(input, plan.height * plan.pixel, scratch.copies);
    input = scratch.copies;
  }
  const PairPass& pass = plan.passes()[0];
  const Index shares = ceil_div(plan.blocks(), plan.share_blocks);
  const Measure measure(plan.measure, args, loops.norm);
  auto run_share = [&](std::int64_t share, int worker) {
    const ShareParts parts(plan, share);
    BFloat16* const packed = scratch.packed + worker * plan.part_elements();
    float* const values = scratch.values + worker * plan.share_values();
    PairTensors own = tensors;
    own.weights = packed;
    const PairTiles all = tiles_of(plan, unit, own, {0, 1, 0, plan.height, 0, plan.part_blocks},
                                   pass, input, scratch.table(plan, worker));
    const Index count = parts.count();
    for (Index i = 0; i < count; ++i) {
      const WeightPart part = parts.at(i);
      WeightPart upcoming;
      if (i + 1 < count)
        upcoming = parts.at(i + 1);
      else if (share + args.threads < shares)  // as a rule other threads take the shares between
        upcoming = ShareParts(plan, share + args.threads).at(0);
      PairTiles job = from_channel(all, part.block * kPairBlock);
      job.block_end = part.blocks;
      job.steps = all.steps + part.step, job.step_count = part.steps;
      job.first_part = part.step == 0, job.last_part = part.step + part.steps == pass.steps;
      job.values = values + (part.block - parts.block) * plan.block_values();
      if (!unit.pack_fetches) job.upcoming = rows_of(plan, weight, upcoming);
      pack_part(plan, unit, weight, part, upcoming, packed);
      unit.tiles(job);
    }
    const Index first = parts.block * kPairBlock;
    for (Index p = 0; p < plan.row_blocks; ++p)
      measure_part(plan, measure, p, first,
                   std::min(parts.block_end * kPairBlock, plan.out_channels) - first);
  };
  parallel_for(args.threads, shares, run_share);
  measure.finish();
}

template <const PairLoops& kLoops>
void run(const KernelArgs& args) noexcept {
  run_pairs(args, kLoops);
}
template <const PairLoops& kLoops>
void run_unpacked(const KernelArgs& args) noexcept {
  run_pairs_unpacked(args, kLoops);
}
template <const PairLoops& kLoops>
void pack(const KernelArgs& args) noexcept {
  pack_pairs(args, *kLoops.unit);
}

constexpr PairLoops kPortableLoops = {&portable::kPairUnit, &baseline::kBatchNormBFloat16};
#if PYCNN_HAVE_AVX512
constexpr PairLoops kAvx512Loops = {&avx512_bf16::kPairUnit, &avx512::kBatchNormBFloat16};
constexpr PairLoops kAmxLoops = {&amx::kPairUnit, &avx512::kBatchNormBFloat16};
#endif

}  // namespace

const PairRun kPairsPortable = {run<kPortableLoops>, run_unpacked<kPortableLoops>,
                                pack<kPortableLoops>, kPairRows};
#if PYCNN_HAVE_AVX512
// Fourteen rows fill its registers.
const PairRun kPairsAvx512 = {run<kAvx512Loops>, run_unpacked<kAvx512Loops>, pack<kAvx512Loops>,
                              14};
const PairRun kPairsAmx = {run<kAmxLoops>, run_unpacked<kAmxLoops>, pack<kAmxLoops>, kPairRows};
#endif

const char* refuse_avx512_bf16() {
  return has_avx512_bf16() ? nullptr : "needs AVX512_BF16, which this machine lacks";
}

const char* refuse_amx() {
  if (!has_amx_bf16()) return "needs AMX_BF16, which this machine or its system lacks";
  return refuse_avx512_bf16();
}

const char* refuse_portable(const Problem& problem) {
  return problem.pinned.empty() ? "only a pin chooses it" : nullptr;
}

Kernel make_pair_kernel(const WindowProblem& window, int threads, const PairRun& entry) {
  Kernel kernel = plan_pair_kernel(window, threads, entry.most_rows);
  kernel.run = entry.run;
  kernel.packed.pack = entry.pack;
  if (kernel.packed.unpacked_scratch_bytes > 0) kernel.packed.run_unpacked = entry.run_unpacked;
  kernel.packed.format = window.transposed ? "conv2d_grad_input.bfloat16" : "conv2d.bfloat16";
  return kernel;
}

}  // namespace pycnn::cpu
