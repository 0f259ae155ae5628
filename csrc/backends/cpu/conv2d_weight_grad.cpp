#include "backends/cpu/conv2d_weight_grad.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/conv2d_lanes_tiles.h"
#include "backends/cpu/convert.h"
#include "core/parallel.h"

namespace pycnn::cpu {

struct WeightGradKernels {
  Index lanes, scalars;
  Index pixels;  // of which a block and a panel stay in the nearest cache
  void (*outer)(const OuterTiles&);
  void (*panels)(const PanelTiles&);
  void (*block)(const PixelBlocks&);
  void (*column_sums)(const ColumnSums&);
  void (*products)(const LaneProducts&);
  void (*add)(float* to, const float* from, Index count);
  const ConvertFunctions* convert;
};

namespace {

// What the lanes of a vector hold.
enum class WeightLanes : std::int64_t {
  kInputs,   // neighbouring inputs: sums have the layout of the weight
  kOutputs,  // output channels of one group: [group][block][filter element][lane]
  kGroups,   // output channels of several small groups: [block][filter element][lane]
};

// Followed in the plan's bytes by the tap offsets.
struct WeightGradPlan {
  ConvInput in;
  Index images = 0, rows = 0, columns = 0;  // of the gradient of the output
  Index out_channels = 0, groups = 1;
  Index taps = 0, run = 0;
  // Pixels, or else rows, of all images follow one another at one step; then `line` is their number
  // of pixels, 1 or that of a row, and unit_rows counts lines.
  Index line = 0;
  Index unit_rows = 1, image_units = 1, units = 0;
  WeightLanes lanes = WeightLanes::kInputs;
  Index block_width = 0, blocks = 0;  // of output channels, per group; of copies, for kInputs
  Index parts = 1, splits = 1;        // of the units; of the output channels
  Index part_floats = 0;
  Index bias = 0;
  // Both operands, or the gradient alone, are copied, so many pixels at a time; 0: no.
  Index blocked_pixels = 0;
  Index inputs_in_place = 0;  // of the two, the gradient alone: few channels are near as they are
  Index copy_floats = 0;      // of a worker: input rows; panels and then a block follow
  Index panel_floats = 0;
  Index worker_floats = 0, workers = 1;
  // Of bfloat16 each worker widens what a unit reads: so many floats more, behind its others.
  Index reach = 0;  // floats from the anchor of a pixel to the end of its last tap
  Index wide_grads = 0, wide_inputs = 0;

  const Index* offsets() const { return reinterpret_cast<const Index*>(this + 1); }
  Index group_outputs() const { return out_channels / groups; }
  Index group_inputs() const { return in.channels / groups; }
  Index filter() const { return taps * run; }
  bool packed() const { return lanes != WeightLanes::kInputs; }
  // Groups that are cut into blocks one by one.
  Index block_groups() const { return lanes == WeightLanes::kGroups ? 1 : groups; }
  Index block_channels() const { return out_channels / block_groups(); }
  // The first part of the sum lives in the result itself when the layouts agree.
  Index part_pitch() const { return ceil_div(part_floats, 16) * 16; }
  Index parts_in_scratch() const { return packed() ? parts : parts - 1; }
  Index worker_pitch(bool widens) const {
    return worker_floats + (widens ? wide_grads + wide_inputs : 0);
  }
  std::size_t scratch_bytes(bool widens) const {
    const Index floats = workers * worker_pitch(widens) + parts_in_scratch() * part_pitch() +
                         (bias ? (parts - 1) * out_channels : 0);
    return static_cast<std::size_t>(floats) * sizeof(float);
  }
};

static_assert(std::has_unique_object_representations_v<WeightGradPlan>);

constexpr Index kMaxParts = 16;
constexpr Index kMaxChunks = 32;
constexpr Index kPartFloats = 2 * 1024 * 1024;  // of all parts together
constexpr Index kSmallPart = 32 * 1024;
constexpr Index kBufferFloats = 96 * 1024;
constexpr Index kGradFloats = 64 * 1024;   // of a unit, which every tap reads again from L2
constexpr Index kUnitFloats = 64 * 1024;   // of both operands, where a unit can have any length
constexpr Index kMinBlocked = 16;          // channels of both sides
constexpr Index kMinBlockedOutputs = 256;  // likewise, when both are copied to blocks
constexpr Index kMinCopied = 48;           // output channels, when the gradient alone is copied
constexpr Index kMinOutputs = 28;          // output channels that repay a pass over the input

double lane_use(Index count, Index lanes) {
  return static_cast<double>(count) / static_cast<double>(ceil_div(count, lanes) * lanes);
}

// Floats from one pixel to the next where all follow one another.
Index pixel_step(const WeightGradPlan& plan, const ConvInput& in) {
  if (plan.columns > 1) return in.column_step();
  return plan.rows == 1 ? in.image_floats() : in.row_step();
}

// ---- Planning

void plan_input(const WeightGradProblem& p, WeightGradPlan& plan, std::vector<Index>& offsets) {
  const TapRange range{-p.padding[0], (p.kernel_size[0] - 1) * p.dilation[0] - p.padding[0],
                       -p.padding[1], (p.kernel_size[1] - 1) * p.dilation[1] - p.padding[1]};
  const bool mergeable = p.groups == 1 && p.dilation[1] == 1;
  const bool merge = mergeable && plan.group_inputs() < kMergeBelow;
  plan.in = make_conv_input(p.input, p.stride, range, {plan.rows, plan.columns}, merge);
  const bool merged = merge || (plan.in.direct && mergeable);
  plan.run = plan.group_inputs() * (merged ? p.kernel_size[1] : 1);
  for (Index i = 0; i < p.kernel_size[0]; ++i)
    for (Index j = 0; j < (merged ? 1 : p.kernel_size[1]); ++j)
      offsets.push_back(plan.in.tap_offset(range.first_row + i * p.dilation[0],
                                           range.first_column + j * p.dilation[1]));
  plan.taps = static_cast<Index>(offsets.size());
}

// Copying to blocks repays itself when every copy is multiplied with several vectors of the other
// side.
bool can_block(const WeightGradPlan& plan) {
  return plan.run >= kMinBlocked && plan.group_outputs() >= kMinBlocked;
}

void plan_units(WeightGradPlan& plan, const WeightGradKernels& kernels) {
  const ConvInput& in = plan.in;
  const Index image = in.height * in.width * in.channels;
  const Index pixels = plan.rows * plan.columns;
  if (in.direct && (pixels == 1 || image == plan.rows * in.row_step())) {
    const bool one_step =
        pixels == 1 || (image == pixels * in.column_step() &&
                        (plan.rows == 1 || in.row_step() == plan.columns * in.column_step()));
    plan.line = one_step ? 1 : plan.columns;
    const Index wanted =
        can_block(plan)
            ? kernels.pixels
            : std::clamp<Index>(kUnitFloats / (in.channels + plan.out_channels), 64, 512);
    const Index lines = plan.images * pixels / plan.line;
    // No short one at the end: each unit goes through all sums.
    const Index units = ceil_div(lines, std::max<Index>(1, wanted / plan.line));
    plan.unit_rows = ceil_div(lines, std::max<Index>(1, units));
    plan.units = ceil_div(lines, std::max<Index>(1, plan.unit_rows));
    return;
  }
  plan.unit_rows = plan.rows;
  auto fits = [&](Index rows) {
    return (in.direct || in.buffer_floats(rows) <= kBufferFloats) &&
           (can_block(plan) || rows * plan.columns * plan.out_channels <= kGradFloats);
  };
  for (Index n = 2; plan.unit_rows > 1 && !fits(plan.unit_rows); ++n)
    plan.unit_rows = ceil_div(plan.rows, n);
  plan.image_units = ceil_div(plan.rows, plan.unit_rows);
  plan.units = plan.images * plan.image_units;
}

// `threads` is 0 where the cut must not depend on it.
void plan_parts(WeightGradPlan& plan, Index lanes, Index threads) {
  const Index outputs = plan.group_outputs();
  if (plan.groups > 1 && 2 * outputs <= lanes && lanes % outputs == 0 &&
      plan.group_inputs() <= outputs)
    plan.lanes = WeightLanes::kGroups;
  else if (1.05 * lane_use(plan.run, lanes) < lane_use(outputs, lanes))
    plan.lanes = WeightLanes::kOutputs;
  plan.block_width = plan.lanes == WeightLanes::kGroups ? lanes : 2 * lanes;
  plan.blocks = ceil_div(plan.block_channels(), plan.block_width);
  const Index all_blocks = plan.blocks * plan.block_groups();
  plan.part_floats =
      plan.filter() * (plan.packed() ? all_blocks * plan.block_width : plan.out_channels);
  const double flops = 2.0 * static_cast<double>(plan.images * plan.rows * plan.columns) *
                       static_cast<double>(plan.filter() * plan.out_channels);
  const Index wanted = static_cast<Index>(
      std::clamp(std::ceil(flops / kChunkFlops), 1.0, static_cast<double>(kMaxChunks)));
  const Index chunks = threads > 0 ? std::min(wanted, threads) : wanted;
  const Index most_parts = std::clamp<Index>(kPartFloats / std::max<Index>(plan.part_floats, 1), 1,
                                             std::clamp<Index>(plan.units, 1, kMaxParts));
  const Index least = can_block(plan) ? kMinBlockedOutputs : kMinOutputs;
  const Index most_splits = plan.packed() ? all_blocks : ceil_div(plan.out_channels, least);
  if (plan.part_floats <= kSmallPart) {
    plan.parts = std::min(chunks, most_parts);
    plan.splits = std::min(most_splits, ceil_div(chunks, plan.parts));
  } else {
    plan.splits = std::min(chunks, most_splits);
    plan.parts = std::min(most_parts, ceil_div(chunks, plan.splits));
  }
}

void plan_blocks(WeightGradPlan& plan, const WeightGradKernels& kernels) {
  const Index width = plan.block_width;
  plan.inputs_in_place = plan.lanes == WeightLanes::kOutputs && plan.in.column_step() < width;
  // Few inputs: the gradient alone is worth a copy when several taps read it.
  const bool gradient = plan.inputs_in_place && plan.taps > 1 && plan.group_outputs() >= kMinCopied;
  if (!can_block(plan) && !gradient) return;
  const bool in_one = plan.line > 0;  // units are that long already
  plan.blocked_pixels = in_one ? plan.unit_rows * plan.line : kernels.pixels;
  if (!plan.inputs_in_place) {
    const Index channels = plan.packed() ? plan.run : plan.group_outputs();
    const Index scalars = ceil_div(channels, kernels.scalars) * kernels.scalars;
    plan.panel_floats = ceil_div(plan.blocked_pixels * scalars + kernels.lanes, 16) * 16;
  }
  plan.worker_floats = plan.panel_floats + plan.blocked_pixels * width;
}

// Floats from the first to the last that some pixels read of an image that is read in place.
Index input_span(const WeightGradPlan& plan, Index rows, Index row, Index columns, Index column) {
  return (rows - 1) * row + (columns - 1) * column + plan.reach;
}

void plan_widening(WeightGradPlan& plan, const std::vector<Index>& offsets) {
  if (plan.units == 0) return;
  const ConvInput& in = plan.in;
  plan.reach = *std::max_element(offsets.begin(), offsets.end()) + plan.run + in.channels -
               plan.group_inputs();
  const Index columns = plan.line > 0 ? plan.line : plan.columns;
  const Index grads = plan.unit_rows * columns * plan.out_channels;
  Index inputs;
  if (!in.direct)
    inputs = std::min(in.height, in.buffer_rows(plan.unit_rows)) * in.width * in.channels;
  else if (plan.line == 1)
    inputs = input_span(plan, 1, 0, plan.unit_rows, pixel_step(plan, in));
  else
    inputs = input_span(plan, plan.unit_rows, in.row_step(), columns, in.column_step());
  plan.wide_grads = ceil_div(grads, 16) * 16 + 16;
  plan.wide_inputs = ceil_div(inputs, 16) * 16 + 16;
}

// ---- Running

struct Tensors {
  ConvInput in;  // of `input`
  const void* input;
  const void* grad_output;
  const ConvertFunctions* convert;  // of both, if they are bfloat16
  Index grad_pixel;                 // floats from pixel to pixel
  float* grad_weight;
  float* grad_bias;
  float* buffers;
  float* parts;
  float* bias_parts;

  float* part(const WeightGradPlan& plan, Index i) const {
    if (!plan.packed() && i == 0) return grad_weight;
    return parts + (plan.packed() ? i : i - 1) * plan.part_pitch();
  }
  float* bias_part(const WeightGradPlan& plan, Index i) const {
    return i == 0 ? grad_bias : bias_parts + (i - 1) * plan.out_channels;
  }
  // `count` elements of one of the two from `first` on; if they must be widened, in a worker's
  // buffer from `at` on.
  const float* floats(const void* of, Index first, Index count, float* buffer, Index at) const {
    if (convert == nullptr) return static_cast<const float*>(of) + first;
    convert->widen(static_cast<const BFloat16*>(of) + first, buffer + at, count);
    return buffer + at;
  }
};

// Pixels that are summed in one go: input anchors and gradient.
struct Unit {
  const float* input = nullptr;
  const float* grad = nullptr;
  Index rows = 0, columns = 0;
  Index input_row = 0, input_column = 0, grad_row = 0, grad_column = 0;
  bool accumulate = false;
};

// The copy of the rows that a unit of one image reads.
void copy_rows(const Tensors& tensors, Index image, Index row, Index rows, float* buffer,
               Index wide) {
  ConvInput in = tensors.in;
  const Index first = row * in.stride[0] + in.first_row;
  const Index begin = std::clamp<Index>(first, 0, in.height);
  const Index end = std::clamp<Index>(first + in.buffer_rows(rows), begin, in.height);
  const Index pitch = in.width * in.image_pixel;
  const float* from = tensors.floats(tensors.input, image * in.image_floats() + begin * pitch,
                                     (end - begin) * pitch, buffer, wide);
  // An image of these rows alone.
  in.first_row = first - begin, in.height = end - begin;
  in.copy_rows(from, 0, rows, buffer);
}

Unit unit_at(const WeightGradPlan& plan, const Tensors& tensors, Index index, float* buffer) {
  const ConvInput& in = tensors.in;
  Unit unit;
  unit.input_row = in.row_step(), unit.input_column = in.column_step();
  unit.grad_column = tensors.grad_pixel;
  Index input = 0, grad = 0;  // where they begin
  Index image = 0, row = 0;
  if (plan.line > 0) {
    const Index first = index * plan.unit_rows;
    const Index lines = plan.images * plan.rows * plan.columns / plan.line;
    const Index count = std::min(plan.unit_rows, lines - first);
    if (plan.line == 1) {
      unit.input_column = pixel_step(plan, in);
      unit.rows = 1, unit.columns = count;
    } else {
      unit.rows = count, unit.columns = plan.line;
    }
    input = in.anchor(0) + first * (plan.line == 1 ? unit.input_column : unit.input_row);
    grad = first * plan.line * unit.grad_column;
    unit.grad_row = unit.columns * unit.grad_column;
  } else {
    image = index / plan.image_units, row = index % plan.image_units * plan.unit_rows;
    unit.rows = std::min(plan.unit_rows, plan.rows - row), unit.columns = plan.columns;
    unit.grad_row = plan.columns * unit.grad_column;
    input = image * in.image_floats() + in.anchor(row);
    grad = (image * plan.rows + row) * unit.grad_row;
  }
  const Index wide_grads = plan.worker_floats, wide_inputs = wide_grads + plan.wide_grads;
  unit.grad =
      tensors.floats(tensors.grad_output, grad, unit.rows * unit.grad_row, buffer, wide_grads);
  if (in.direct) {
    const Index span = input_span(plan, unit.rows, unit.input_row, unit.columns, unit.input_column);
    unit.input = tensors.floats(tensors.input, input, span, buffer, wide_inputs);
  } else {
    copy_rows(tensors, image, row, unit.rows, buffer, wide_inputs);
    unit.input = buffer;
  }
  return unit;
}

struct Outputs {
  Index begin, end;  // channels of one group, counted over all groups
  Index group;
};

// The products of one tap, as the operands lie.
void set_tap(const WeightGradPlan& plan, const Unit& unit, const Outputs& outputs, float* part,
             Index t, OuterTiles& tiles) {
  const float* tap = unit.input + outputs.group * plan.group_inputs() + plan.offsets()[t];
  const float* grad = unit.grad + outputs.begin;
  tiles.rows = unit.rows, tiles.columns = unit.columns;
  tiles.accumulate = unit.accumulate;
  if (plan.packed()) {
    tiles.a = tap, tiles.m = plan.run;
    tiles.a_row = unit.input_row, tiles.a_column = unit.input_column;
    tiles.b = grad, tiles.n = outputs.end - outputs.begin;
    tiles.b_row = unit.grad_row, tiles.b_column = unit.grad_column;
    tiles.c = part + t * plan.run * plan.block_width, tiles.c_pitch = plan.block_width;
  } else {
    tiles.a = grad, tiles.m = outputs.end - outputs.begin;
    tiles.a_row = unit.grad_row, tiles.a_column = unit.grad_column;
    tiles.b = tap, tiles.n = plan.run;
    tiles.b_row = unit.input_row, tiles.b_column = unit.input_column;
    tiles.c = part + outputs.begin * plan.filter() + t * plan.run;
    tiles.c_pitch = plan.filter();
  }
}

void add_unit(const WeightGradPlan& plan, const WeightGradKernels& kernels, const Unit& unit,
              const Outputs& outputs, float* part) {
  OuterTiles tiles;
  for (Index t = 0; t < plan.taps; ++t) {
    set_tap(plan, unit, outputs, part, t, tiles);
    kernels.outer(tiles);
  }
}

// As add_unit, by way of copies: the gradient is copied for the first tap, the inputs for each.
void add_panels(const WeightGradPlan& plan, const WeightGradKernels& kernels, const Unit& unit,
                const Outputs& outputs, float* part, float* copies) {
  PanelTiles tiles;
  tiles.panels = copies, tiles.block = copies + plan.panel_floats;
  for (Index t = 0; t < plan.taps; ++t) {
    set_tap(plan, unit, outputs, part, t, tiles);
    tiles.copy_a = t == 0 || plan.packed(), tiles.copy_b = t == 0 || !plan.packed();
    kernels.panels(tiles);
  }
}

// As add_unit, where the gradient alone is copied and the inputs are multiplied as they lie.
void add_grad_block(const WeightGradPlan& plan, const WeightGradKernels& kernels, const Unit& unit,
                    const Outputs& outputs, float* part, float* copy) {
  PixelBlocks grads;
  grads.from = unit.grad + outputs.begin, grads.channels = outputs.end - outputs.begin;
  grads.rows = unit.rows, grads.columns = unit.columns;
  grads.row = unit.grad_row, grads.column = unit.grad_column;
  grads.to = copy;
  kernels.block(grads);
  OuterTiles tiles;
  for (Index t = 0; t < plan.taps; ++t) {
    set_tap(plan, unit, outputs, part, t, tiles);
    tiles.b = copy;
    tiles.b_row = unit.columns * plan.block_width, tiles.b_column = plan.block_width;
    kernels.outer(tiles);
  }
}

// Calls f with the parts of a unit that are copied to blocks at a time: some rows, or a piece of
// one.
template <class F>
void each_piece(const WeightGradPlan& plan, const Unit& unit, F&& f) {
  const Index pieces = ceil_div(unit.columns, plan.blocked_pixels);
  const Index rows = std::max<Index>(1, plan.blocked_pixels / unit.columns);
  for (Index row = 0; row < unit.rows; row += rows)
    for (Index p = 0; p < pieces; ++p) {
      const Index column = unit.columns * p / pieces;
      Unit piece = unit;
      piece.rows = std::min(rows, unit.rows - row);
      piece.columns = unit.columns * (p + 1) / pieces - column;
      piece.input += row * unit.input_row + column * unit.input_column;
      piece.grad += row * unit.grad_row + column * unit.grad_column;
      piece.accumulate = unit.accumulate || row > 0 || p > 0;
      f(piece);
    }
}

void add_products(const WeightGradPlan& plan, const WeightGradKernels& kernels, const Unit& unit,
                  const Outputs& outputs, float* part) {
  LaneProducts products;
  products.input = unit.input + outputs.begin / plan.group_outputs() * plan.group_inputs();
  products.input_row = unit.input_row, products.input_column = unit.input_column;
  products.grad = unit.grad + outputs.begin;
  products.grad_row = unit.grad_row, products.grad_column = unit.grad_column;
  products.rows = unit.rows, products.columns = unit.columns;
  products.taps = plan.offsets(), products.tap_count = plan.taps;
  products.group_inputs = plan.group_inputs(), products.group_outputs = plan.group_outputs();
  products.lanes = outputs.end - outputs.begin;
  products.sums = part, products.pitch = plan.block_width;
  products.accumulate = unit.accumulate;
  kernels.products(products);
}

void add_bias(const WeightGradKernels& kernels, const Unit& unit, const Outputs& outputs,
              float* bias_part) {
  ColumnSums sums;
  sums.b = unit.grad + outputs.begin;
  sums.rows = unit.rows, sums.columns = unit.columns;
  sums.b_row = unit.grad_row, sums.b_column = unit.grad_column;
  sums.n = outputs.end - outputs.begin;
  sums.sums = bias_part + outputs.begin, sums.accumulate = unit.accumulate;
  kernels.column_sums(sums);
}

// The output channels of one split, group by group; blocks of lanes stay whole.
template <class F>
void each_outputs(const WeightGradPlan& plan, Index split, F&& f) {
  const Index width = plan.packed() ? plan.block_width : 1;
  const Index channels = plan.block_channels();
  const Index group_items = ceil_div(channels, width), items = group_items * plan.block_groups();
  Index item = items * split / plan.splits;
  const Index end = items * (split + 1) / plan.splits;
  while (item < end) {
    const Index group = item / group_items, in_group = item % group_items;
    const Index last = plan.packed() ? item + 1 : std::min(end, (group + 1) * group_items);
    const Index base = group * channels;
    f(Outputs{base + in_group * width, base + std::min((in_group + last - item) * width, channels),
              group},
      item);
    item = last;
  }
}

void run_chunk(const WeightGradPlan& plan, const WeightGradKernels& kernels, const Tensors& tensors,
               Index chunk, float* buffer) {
  const Index index = chunk / plan.splits, split = chunk % plan.splits;
  float* part = tensors.part(plan, index);
  const Index first = plan.units * index / plan.parts;
  const Index end = plan.units * (index + 1) / plan.parts;
  for (Index u = first; u < end; ++u) {
    Unit unit = unit_at(plan, tensors, u, buffer);
    unit.accumulate = u != first;
    each_outputs(plan, split, [&](const Outputs& outputs, Index block) {
      const Index at = plan.packed() ? block * plan.filter() * plan.block_width : 0;
      if (plan.lanes == WeightLanes::kGroups)
        add_products(plan, kernels, unit, outputs, part + at);
      else if (plan.blocked_pixels > 0)
        each_piece(plan, unit, [&](const Unit& piece) {
          (plan.inputs_in_place ? add_grad_block : add_panels)(
              plan, kernels, piece, outputs, part + at, buffer + plan.copy_floats);
        });
      else
        add_unit(plan, kernels, unit, outputs, part + at);
      if (plan.bias) add_bias(kernels, unit, outputs, tensors.bias_part(plan, index));
    });
  }
}

// Adds the parts [begin, end) of all sums as a binary tree; the result is in the first part.
template <class Part>
void add_parts(const WeightGradPlan& plan, const WeightGradKernels& kernels, Part&& part,
               Index begin, Index end) {
  for (Index step = 1; step < plan.parts; step *= 2)
    for (Index i = 0; i + step < plan.parts; i += 2 * step)
      kernels.add(part(i) + begin, part(i + step) + begin, end - begin);
}

// From [group][block][filter element][lane] to [output channel][filter element].
void unpack(const WeightGradPlan& plan, const float* packed, float* weight, Index block) {
  const Index group = block / plan.blocks, in_group = block % plan.blocks * plan.block_width;
  const Index count = std::min(plan.block_width, plan.block_channels() - in_group);
  const float* from = packed + block * plan.filter() * plan.block_width;
  float* to = weight + (group * plan.block_channels() + in_group) * plan.filter();
  for (Index o = 0; o < count; ++o)
    for (Index i = 0; i < plan.filter(); ++i)
      to[o * plan.filter() + i] = from[i * plan.block_width + o];
}

void combine(const WeightGradPlan& plan, const WeightGradKernels& kernels, const Tensors& tensors,
             int threads) {
  if (plan.parts > 1) {
    auto add_range = [&](std::int64_t begin, std::int64_t end) {
      add_parts(
          plan, kernels, [&](Index i) { return tensors.part(plan, i); }, begin, end);
    };
    parallel_ranges(threads, plan.part_floats, kSmallPart / 2, add_range);
    if (plan.bias)
      add_parts(
          plan, kernels, [&](Index i) { return tensors.bias_part(plan, i); }, 0, plan.out_channels);
  }
  if (!plan.packed()) return;
  const Index blocks = plan.blocks * plan.block_groups();
  const Index grain = std::max<Index>(1, kSmallPart / (plan.filter() * plan.block_width));
  auto unpack_range = [&](std::int64_t begin, std::int64_t end) {
    for (Index block = begin; block < end; ++block)
      unpack(plan, tensors.parts, tensors.grad_weight, block);
  };
  parallel_ranges(threads, blocks, grain, unpack_range);
}

template <const WeightGradKernels& kKernels, bool kWidens>
void run(const KernelArgs& args) noexcept {
  const WeightGradPlan& plan = *reinterpret_cast<const WeightGradPlan*>(args.plan);
  const Index pitch = plan.worker_pitch(kWidens);
  Tensors tensors;
  tensors.in = plan.in.with_pixels(args.inputs[0].pitch());
  tensors.grad_pixel = args.inputs[1].pitch();
  tensors.input = args.inputs[0].data;
  tensors.grad_output = args.inputs[1].data;
  tensors.convert = kWidens ? kKernels.convert : nullptr;
  tensors.grad_weight = args.outputs[0].as<float>();
  tensors.grad_bias = plan.bias ? args.outputs[1].as<float>() : nullptr;
  tensors.buffers = reinterpret_cast<float*>(args.scratch);
  tensors.parts = tensors.buffers + plan.workers * pitch;
  tensors.bias_parts = tensors.parts + plan.parts_in_scratch() * plan.part_pitch();
  if (plan.units == 0) {
    std::fill_n(tensors.grad_weight, plan.out_channels * plan.filter(), 0.0f);
    if (plan.bias) std::fill_n(tensors.grad_bias, plan.out_channels, 0.0f);
    return;
  }
  auto body = [&](std::int64_t chunk, int worker) {
    run_chunk(plan, kKernels, tensors, chunk, tensors.buffers + worker * pitch);
  };
  parallel_for(args.threads, plan.parts * plan.splits, body);
  combine(plan, kKernels, tensors, args.threads);
}

constexpr WeightGradKernels kBaselineKernels = {
    baseline::kGemmLanes,  baseline::kGemmScalars,  256,
    baseline::outer_tiles, baseline::panel_tiles,   baseline::block_pixels,
    baseline::column_sums, baseline::lane_products, baseline::add_floats,
    &baseline::kConvert};
#if PYCNN_HAVE_AVX2
constexpr WeightGradKernels kAvx2Kernels = {
    avx2::kGemmLanes,  avx2::kGemmScalars,  256,
    avx2::outer_tiles, avx2::panel_tiles,   avx2::block_pixels,
    avx2::column_sums, avx2::lane_products, avx2::add_floats,
    &avx2::kConvert};
#endif
#if PYCNN_HAVE_AVX512
constexpr WeightGradKernels kAvx512Kernels = {
    avx512::kGemmLanes,  avx512::kGemmScalars,  192,
    avx512::outer_tiles, avx512::panel_tiles,   avx512::block_pixels,
    avx512::column_sums, avx512::lane_products, avx512::add_floats,
    &avx512::kConvert};
#endif

}  // namespace

const WeightGradRun kWeightGradBaseline = {run<kBaselineKernels, false>,
                                           run<kBaselineKernels, true>, &kBaselineKernels};
#if PYCNN_HAVE_AVX2
const WeightGradRun kWeightGradAvx2 = {run<kAvx2Kernels, false>, run<kAvx2Kernels, true>,
                                       &kAvx2Kernels};
#endif
#if PYCNN_HAVE_AVX512
const WeightGradRun kWeightGradAvx512 = {run<kAvx512Kernels, false>, run<kAvx512Kernels, true>,
                                         &kAvx512Kernels};
#endif

Kernel make_weight_grad_kernel(const WeightGradProblem& p, int threads,
                               const WeightGradRun& entry) {
  WeightGradPlan plan;
  plan.images = p.grad_output[0], plan.rows = p.grad_output[1], plan.columns = p.grad_output[2];
  plan.out_channels = p.grad_output[3], plan.groups = p.groups;
  plan.bias = p.bias;
  plan.in.channels = p.input[3];
  std::vector<Index> offsets;
  plan_input(p, plan, offsets);
  plan_units(plan, *entry.kernels);
  plan_parts(plan, entry.kernels->lanes, p.per_thread ? std::max(threads, 1) : 0);
  plan.workers = std::max(threads, 1);
  plan_blocks(plan, *entry.kernels);
  if (!plan.in.direct)
    plan.copy_floats = ceil_div(plan.in.buffer_floats(plan.unit_rows), 16) * 16 + 16;
  plan.worker_floats += plan.copy_floats;
  plan_widening(plan, offsets);

  Kernel kernel;
  kernel.run = entry.run;
  kernel.scratch_bytes = plan.scratch_bytes(false);
  // Units of whole images may be more, for many threads, than all images widened once.
  const Index all_floats =
      plan.images * (plan.in.image_floats() + plan.rows * plan.columns * plan.out_channels);
  if (plan.workers * (plan.wide_grads + plan.wide_inputs) <= all_floats) {
    kernel.run_widening = entry.run_widening;
    kernel.widening_scratch_bytes = plan.scratch_bytes(true);
  }
  const bool at_anchor =
      plan.run == plan.group_inputs() &&
      std::all_of(offsets.begin(), offsets.end(), [](Index offset) { return offset == 0; });
  kernel.strided_inputs = (!plan.in.direct || at_anchor ? 0b01 : 0) | 0b10;
  append_to_plan(kernel.plan, &plan, 1);
  append_to_plan(kernel.plan, offsets.data(), offsets.size());
  return kernel;
}

}  // namespace pycnn::cpu
