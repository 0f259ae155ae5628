#include "backends/cpu/conv2d_window_plan.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/conv2d_grouped_rows.h"
#include "backends/cpu/conv2d_taps.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

struct Lists {
  std::vector<Pass> passes;
  std::vector<Index> offsets;
  std::vector<KernelTap> kernel_taps;
};

// One row of taps, as runs of up to three neighbours whose pixels meet several of them: at stride 2
// the outer two of three, and no two.
void add_group_runs(const WindowPlan& plan, Index row, const std::vector<AxisTap>& columns,
                    Lists& lists) {
  const Index stride = plan.in.stride[1];
  const bool joined = follow_one_another(columns) && stride <= 2;
  for (std::size_t first = 0; first < columns.size();) {
    const Index left = static_cast<Index>(columns.size() - first);
    const Index taps = !joined ? 1 : left >= 3 ? 3 : stride == 1 ? left : 1;
    const Index offset = plan.in.tap_offset(row, columns[first].input);
    // All planes are one run.
    const Index most = plan.lanes.shared ? plan.in_channels : kInputBlock;
    for (Index k = 0; k < plan.in_channels; k += most) {
      const Index block = k / most * plan.lanes.plane_pitch;
      lists.offsets.insert(lists.offsets.end(),
                           {offset + block, taps, std::min(most, plan.in_channels - k)});
    }
    first += static_cast<std::size_t>(taps);
  }
}

void add_pass(const WindowPlan& plan, const Pass& place, const PassTaps& taps, bool merge,
              Lists& lists) {
  Pass pass = place;
  pass.kernel_tap = static_cast<Index>(lists.kernel_taps.size());
  pass.tap = static_cast<Index>(lists.offsets.size());
  const bool merged = merge && follow_one_another(taps.columns);
  for (const AxisTap& row : taps.rows) {
    if (plan.lanes.grouped) add_group_runs(plan, row.input, taps.columns, lists);
    for (const AxisTap& column : taps.columns) {
      lists.kernel_taps.push_back({row.kernel, column.kernel});
      if (plan.lanes.grouped) continue;
      const Index offset = plan.in.tap_offset(row.input, column.input);
      if (plan.lanes.used)
        for (Index k = 0; k < plan.in_channels; ++k)
          lists.offsets.push_back(offset + k * plan.lanes.plane_pitch);
      else if (!merged || &column == &taps.columns.front())
        lists.offsets.push_back(offset);
    }
  }
  pass.kernel_taps = static_cast<Index>(lists.kernel_taps.size()) - pass.kernel_tap;
  pass.taps = static_cast<Index>(lists.offsets.size()) - pass.tap;
  pass.run = plan.in_channels * (merged ? static_cast<Index>(taps.columns.size()) : 1);
  if (!lists.passes.empty())
    pass.weights = lists.passes.back().weights +
                   plan.weight_groups() * plan.group_weights(lists.passes.back());
  lists.passes.push_back(pass);
}

// Rows are always copied: one plane per read channel, each pixel as wide as the output's. Beyond
// its last pixel a plane holds zeros for as far as whole vectors reach.
void spread_over_lanes(WindowPlan& plan, const TapRange& taps, const Pair& output_size) {
  ConvInput& in = plan.in;
  Lanes& lanes = plan.lanes;
  const Index width = lanes.width;
  in.direct = false;
  in.pixel_pitch = width;
  const Index reach = (taps.last_column - taps.first_column) * width;
  const Index last = lanes.flat ? ceil_div(output_size[1] * width, lanes.pattern) * lanes.pattern
                                : (output_size[1] - 1) * in.stride[1] * width +
                                      ceil_div(width, plan.block_width) * plan.block_width;
  const Index floats = std::max(reach + last, in.buffer_columns * width + plan.block_width);
  lanes.plane_pitch = ceil_div(floats, 16) * 16;
  in.row_pitch = plan.in_channels * lanes.plane_pitch;
}

// Whether the pixels of one tile, in place, want the same few lines of the first-level cache at the
// same time: their distance is a multiple of what one way of it holds, and they are more than it
// has ways.
bool pixels_share_sets(const WindowPlan& plan) {
  constexpr Index kWayFloats = 1024, kLanesOfLargeTiles = 16;
  return plan.in.pixel_pitch % kWayFloats == 0 && plan.block_width >= 2 * kLanesOfLargeTiles;
}

// All passes that have taps and pixels; also settles how the input is read.
Lists make_passes(const WindowProblem& w, WindowPlan& plan) {
  plan.out_stride = w.transposed ? w.stride : Pair{1, 1};
  std::vector<PassTaps> taps;
  std::vector<Pass> places;
  // A stride beyond the output leaves residues that no output has.
  const Index rows = std::min(plan.out_stride[0], w.output[1]);
  const Index columns = std::min(plan.out_stride[1], w.output[2]);
  for (Index row = 0; row < rows; ++row)
    for (Index column = 0; column < columns; ++column) {
      PassTaps both{axis_taps(w, 0, row), axis_taps(w, 1, column)};
      if (both.rows.empty() || both.columns.empty()) {
        plan.zero_fill = true;
        continue;
      }
      Pass place;
      place.first_row = row, place.first_column = column;
      place.rows = ceil_div(w.output[1] - row, plan.out_stride[0]);
      place.columns = ceil_div(w.output[2] - column, plan.out_stride[1]);
      taps.push_back(std::move(both));
      places.push_back(place);
    }
  Lists lists;
  if (taps.empty()) return lists;

  TapRange range{taps[0].rows.front().input, taps[0].rows.back().input,
                 taps[0].columns.front().input, taps[0].columns.back().input};
  Pair most = {0, 0};
  bool all_contiguous = true;
  for (std::size_t i = 0; i < taps.size(); ++i) {
    range.first_row = std::min(range.first_row, taps[i].rows.front().input);
    range.last_row = std::max(range.last_row, taps[i].rows.back().input);
    range.first_column = std::min(range.first_column, taps[i].columns.front().input);
    range.last_column = std::max(range.last_column, taps[i].columns.back().input);
    most = {std::max(most[0], places[i].rows), std::max(most[1], places[i].columns)};
    all_contiguous = all_contiguous && follow_one_another(taps[i].columns);
  }
  const bool merge =
      !plan.lanes.used && w.groups == 1 && all_contiguous && plan.in_channels < kMergeBelow;
  const Pair in_stride = w.transposed ? Pair{1, 1} : w.stride;
  plan.in = make_conv_input(w.input, in_stride, range, most, merge);
  const bool single = range.first_row == range.last_row && range.first_column == range.last_column;
  if (plan.in.direct && single && !plan.lanes.used && (in_stride[1] > 1 || pixels_share_sets(plan)))
    gather_pixels(plan.in, most);
  if (plan.lanes.grouped) {
    const Index inputs = plan.lanes.width / plan.group_channels * plan.in_channels;
    plan.lanes.plane_pitch = plan_group_rows(
        plan.in, plan.lanes.planes ? GroupLayout{plan.in_channels, plan.block_width / 2}
                                   : GroupLayout{ceil_div(inputs, kInputBlock), 0});
  } else if (plan.lanes.used) {
    spread_over_lanes(plan, range, most);
  }
  for (std::size_t i = 0; i < taps.size(); ++i)
    add_pass(plan, places[i], taps[i],
             merge || (plan.in.direct && !plan.lanes.used && w.groups == 1), lists);
  return lists;
}

constexpr Index kBufferFloats = 96 * 1024;       // of a worker's copy of input rows: stays in L2
constexpr Index kGroupBufferFloats = 64 * 1024;  // likewise of all groups, beside their weights
constexpr Index kFetchedFloats = 48 * 1024;      // of a chunk, while the next one comes near
constexpr Index kMinFetched = 128;  // channels: with fewer, too little is computed for each line
constexpr Index kLargeWeights = 128 * 1024;  // floats; beyond, they do not stay in L2
constexpr Index kWantedChunks = 16;

// Borders depend on the shapes alone. Small images are taken several at a time, large ones are cut
// by rows; when that gives too few chunks, output channels are shared out as well.
void choose_chunks(const Lists& lists, WindowPlan& plan) {
  double image_flops = 0;
  Index rows = 1, weights = 0;
  for (const Pass& pass : lists.passes) {
    image_flops += 2.0 * static_cast<double>(pass.rows * pass.columns * pass.kernel_taps) *
                   static_cast<double>(plan.in_channels * plan.group_channels * plan.groups);
    rows = std::max(rows, pass.rows);
    weights += plan.weight_groups() * plan.group_weights(pass);
  }
  const Index all_blocks =
      plan.lanes.used ? ceil_div(plan.out_channels, plan.lanes.width) : plan.blocks * plan.groups;
  plan.fetch = plan.in.direct && !plan.lanes.used && plan.groups == 1 &&
               plan.in.stride == Pair{1, 1} && lists.offsets.size() == 1 &&
               plan.in_channels >= kMinFetched && weights <= kLargeWeights;
  const Index most_floats = plan.lanes.grouped ? kGroupBufferFloats
                            : plan.fetch       ? kFetchedFloats
                                               : kBufferFloats;
  auto fits = [&](Index images, Index block) {
    return images * plan.in.buffer_floats(block) <= most_floats;
  };
  Index& block = plan.row_block;
  block = rows;
  for (Index parts = 2; block > 1 && !fits(1, block); ++parts) block = ceil_div(rows, parts);
  auto chunk_flops = [&] {
    return image_flops * static_cast<double>(block * plan.image_block) /
           static_cast<double>(rows * plan.splits);
  };
  if (block == rows) {
    const double wanted = std::ceil(kChunkFlops / std::max(image_flops, 1.0));
    Index most = static_cast<Index>(std::min(wanted, static_cast<double>(plan.images)));
    // Weights too large for L2 are read once per block of images.
    if (weights > kLargeWeights) most = std::max(most, std::min<Index>(plan.images, 4));
    while (plan.image_block < most && fits(plan.image_block + 1, block)) ++plan.image_block;
  }
  auto chunks = [&] {
    return ceil_div(plan.images, plan.image_block) * ceil_div(rows, block) * plan.splits;
  };
  auto coarse = [&] { return chunks() < kWantedChunks && chunk_flops() > 2 * kChunkFlops; };
  auto split_channels = [&] {
    while (coarse() && plan.splits * 2 <= all_blocks) plan.splits *= 2;
  };
  // Groups are copied a few at a time: sharing them out costs nothing.
  if (weights > kLargeWeights || plan.lanes.grouped) split_channels();
  while (coarse() && block >= 8) block = ceil_div(block, 2);
  split_channels();
  plan.image_blocks = ceil_div(plan.images, plan.image_block);
  plan.row_blocks = ceil_div(rows, block);
  if (!plan.in.direct) {
    plan.worker_floats = plan.image_block * plan.in.buffer_floats(block);
    plan.worker_floats = ceil_div(plan.worker_floats, 16) * 16 + 16;
  }
}

}  // namespace

bool has_gaps(const WindowProblem& w) {
  if (!w.transposed) return false;
  for (int axis = 0; axis < 2; ++axis) {
    const Index residues = std::min(w.stride[axis], w.output[axis + 1]);
    for (Index residue = 0; residue < residues; ++residue)
      if (axis_taps(w, axis, residue).empty()) return true;
  }
  return false;
}

WeightLayout weight_layout(const WindowPlan& plan) {
  const Index taps = plan.kernel_size[0] * plan.kernel_size[1];
  if (plan.transposed)  // reads OC / G channels, writes IC / G
    return {plan.group_channels, taps * plan.group_channels, 1,
            plan.in_channels * taps * plan.group_channels};
  return {plan.in_channels, 1, taps * plan.in_channels,
          plan.group_channels * taps * plan.in_channels};
}

WindowTensors tensors_of(const ExtraInputs& extra, const KernelArgs& args) {
  auto optional = [&](int i) {
    return i < 0 ? nullptr : args.inputs[static_cast<std::size_t>(i)].as<const float>();
  };
  return {args.inputs[0].as<const float>(),
          args.inputs[1].as<const float>(),
          optional(extra.bias),
          optional(extra.residual),
          optional(extra.mask),
          args.outputs[0].as<float>(),
          args.inputs[0].pitch(),
          args.outputs[0].pitch()};
}

WindowChunk chunk_at(const WindowPlan& plan, Index index) {
  const Index row_block = index % plan.row_blocks;
  const Index image_block = index / plan.row_blocks % plan.image_blocks;
  const Index split = index / (plan.row_blocks * plan.image_blocks);
  const Index blocks =
      plan.lanes.used ? ceil_div(plan.out_channels, plan.lanes.width) : plan.blocks * plan.groups;
  WindowChunk chunk;
  chunk.image = image_block * plan.image_block;
  chunk.images = std::min(plan.image_block, plan.images - chunk.image);
  chunk.row = row_block * plan.row_block;
  chunk.rows = plan.row_block;
  chunk.block = blocks * split / plan.splits;
  chunk.block_end = blocks * (split + 1) / plan.splits;
  return chunk;
}

void measure_chunk(const WindowPlan& plan, const Measure& measure, Index index) {
  const WindowChunk chunk = chunk_at(plan, index);
  measure_chunk(plan, measure, index, chunk.block, chunk.block_end);
}

void measure_chunk(const WindowPlan& plan, const Measure& measure, Index index, Index block,
                   Index block_end) {
  if (!measure.wanted()) return;
  const WindowChunk chunk = chunk_at(plan, index);
  // The first channel of a block, over all groups.
  auto channel_of = [&](Index block) {
    if (plan.lanes.used) return std::min(block * plan.lanes.width, plan.out_channels);
    return block / plan.blocks * plan.group_channels + block % plan.blocks * plan.block_width;
  };
  const Index first = channel_of(block);
  // All rows that the passes' pixels and those without a tap share.
  const Index height = plan.out_pixels / plan.out_columns, step = plan.out_stride[0];
  const Index row = std::min(chunk.row * step, height);
  const Index end = std::min((chunk.row + chunk.rows) * step, height);
  MeasuredPart part(measure, index % plan.measure.parts, first, channel_of(block_end) - first);
  for (Index n = chunk.image; n < chunk.image + chunk.images; ++n)
    part.add(n * plan.out_pixels + row * plan.out_columns, (end - row) * plan.out_columns);
}

Kernel plan_window_kernel(const WindowProblem& w, const Lanes& lanes, Index lane_count,
                          int threads) {
  WindowPlan plan;
  plan.images = w.input[0];
  plan.input_image = w.input[1] * w.input[2] * w.input[3];
  plan.out_columns = w.output[2], plan.out_channels = w.output[3];
  plan.out_pixels = w.output[1] * w.output[2];
  plan.out_image = plan.out_pixels * w.output[3];
  plan.groups = w.groups;
  plan.in_channels = w.input[3] / w.groups, plan.group_channels = w.output[3] / w.groups;
  plan.kernel_size = w.kernel_size, plan.transposed = w.transposed;
  plan.block_width = 2 * lane_count;
  plan.blocks = ceil_div(plan.group_channels, plan.block_width);
  plan.extra = ExtraInputs(w);
  plan.activation = w.epilogue.activation;
  plan.slope = static_cast<float>(w.epilogue.slope);
  plan.tile_activation = tile_activation(plan.activation);
  plan.lanes = lanes;
  const Lists lists = make_passes(w, plan);
  plan.pass_count = static_cast<Index>(lists.passes.size());
  plan.offset_count = static_cast<Index>(lists.offsets.size());
  if (plan.pass_count > 0) choose_chunks(lists, plan);

  Kernel kernel;
  const std::size_t workers = static_cast<std::size_t>(std::max(threads, 1));
  // In lanes, the bias is spread out once per run.
  const std::size_t spread_bias = static_cast<std::size_t>(plan.lanes.pattern);
  kernel.scratch_bytes =
      (workers * static_cast<std::size_t>(plan.worker_floats) + spread_bias) * sizeof(float);
  plan.measure = {w.measure, chunk_count(plan) / plan.splits, plan.out_channels, 0};
  plan.measure.reserve(kernel);
  Index packed = 16;  // never empty
  for (const Pass& pass : lists.passes)
    packed = std::max(packed, pass.weights + plan.weight_groups() * plan.group_weights(pass));
  kernel.packed.input = 1;
  kernel.packed.bytes = static_cast<std::size_t>(packed) * sizeof(float);
  kernel.in_place = {plan.extra.in_place()};
  append_to_plan(kernel.plan, &plan, 1);
  append_to_plan(kernel.plan, lists.passes.data(), lists.passes.size());
  append_to_plan(kernel.plan, lists.offsets.data(), lists.offsets.size());
  append_to_plan(kernel.plan, lists.kernel_taps.data(), lists.kernel_taps.size());
  return kernel;
}

Index output_start(const WindowPlan& plan, const WindowTensors& tensors, const WindowChunk& chunk,
                   const Pass& pass) {
  const Index row = pass.first_row + chunk.row * plan.out_stride[0];
  const Index pixel = chunk.image * plan.out_pixels + row * plan.out_columns + pass.first_column;
  return pixel * tensors.output_pixel;
}

template <class T>
void zero_output(const WindowPlan& plan, T* output, int threads) {
  if (!plan.zero_fill) return;
  auto clear = [&](std::int64_t begin, std::int64_t end) {
    std::fill(output + begin, output + end, T{});
  };
  parallel_ranges(threads, plan.images * plan.out_image, 64 * 1024, clear);
}
template void zero_output(const WindowPlan&, float*, int);
template void zero_output(const WindowPlan&, BFloat16*, int);

Index chunk_count(const WindowPlan& plan) {
  return plan.pass_count == 0 ? 0 : plan.image_blocks * plan.row_blocks * plan.splits;
}

TileActivation tile_activation(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kRelu:
      return TileActivation::kRelu;
    case ActivationKind::kRelu6:
      return TileActivation::kRelu6;
    case ActivationKind::kLeakyRelu:
      return TileActivation::kLeakyRelu;
    default:
      return TileActivation::kIdentity;
  }
}

void activate(ActivationKind kind, const ActivationFunctions& functions, const FloatRuns& runs) {
  if (tile_activation(kind) != TileActivation::kIdentity) return;
  const auto function = forward_of(functions, kind);
  if (function == nullptr) return;
  if (runs.count == runs.pitch) return function(runs.first, runs.first, runs.runs * runs.count, 0);
  for (Index i = 0; i < runs.runs; ++i) {
    float* p = runs.first + i * runs.pitch;
    function(p, p, runs.count, 0);
  }
}

}  // namespace pycnn::cpu
