#include "backends/cpu/conv2d_bfloat16_plan.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/conv2d_taps.h"

namespace pycnn::cpu {
namespace {

constexpr Index kCopyElements = 384 * 1024;  // of a worker's copy of input rows: stays in L2
constexpr Index kLargeWeights = 512 * 1024;  // elements; beyond, they do not stay in L2
constexpr Index kUnpackedShares = 8;         // of a weight in parts, for as many threads
constexpr Index kUnpackedSums = 160 * 1024;  // floats of a wide share
constexpr Index kUnpackedRows = 1024;        // their sums pass through L2 with each part
constexpr Index kUnpackedTileRows = 256;     // AMX multiplies faster than the sums pass
constexpr double kPairChunkFlops = 3e7;      // some ten microseconds of AMX
constexpr Index kPairChunks = 16;
constexpr Index kNarrowPixels = 8 * 1024;  // of a chunk of few channels: its table stays near
constexpr Index kLeastPixels = 64, kMostPixels = 768;  // of a chunk, in place
constexpr Index kNearInput = 256 * 1024;  // elements of a chunk that meets large weights, in place

struct PairLists {
  std::vector<PairPass> passes;
  std::vector<PassTaps> places;  // of each pass
  std::vector<Index> offsets;
  std::vector<PairStepPlan> steps;
  std::vector<PairTap> taps;
  std::vector<PairPlane> planes;

  Index most_rows() const {
    Index rows = 0;
    for (const PairPass& pass : passes) rows = std::max(rows, pass.rows);
    return rows;
  }
  Index most_columns() const {
    Index columns = 0;
    for (const PairPass& pass : passes) columns = std::max(columns, pass.columns);
    return columns;
  }
};

void find_passes(const WindowProblem& w, PairPlan& plan, PairLists& lists) {
  // A stride beyond the output leaves residues that no output has.
  const Index rows = std::min(plan.out_stride[0], plan.out_rows);
  const Index columns = std::min(plan.out_stride[1], plan.out_columns);
  for (Index row = 0; row < rows; ++row)
    for (Index column = 0; column < columns; ++column) {
      PassTaps places{axis_taps(w, 0, row), axis_taps(w, 1, column)};
      if (places.rows.empty() || places.columns.empty()) {
        plan.zero_fill = 1;
        continue;
      }
      PairPass pass;
      pass.first_row = row, pass.first_column = column;
      pass.rows = ceil_div(plan.out_rows - row, plan.out_stride[0]);
      pass.columns = ceil_div(plan.out_columns - column, plan.out_stride[1]);
      lists.passes.push_back(pass);
      lists.places.push_back(std::move(places));
    }
}

bool neighbours(const PairLists& lists) {
  return std::all_of(lists.places.begin(), lists.places.end(),
                     [](const PassTaps& places) { return follow_one_another(places.columns); });
}

Index fewest_columns(const PairLists& lists) {
  auto columns = [](const PassTaps& places) { return static_cast<Index>(places.columns.size()); };
  Index fewest = columns(lists.places.front());
  for (const PassTaps& places : lists.places) fewest = std::min(fewest, columns(places));
  return fewest;
}

// Elements from pixel to pixel of a run. A unit that takes rows one by one takes a pair from
// anywhere; else pixels are filled up to whole pairs. (A single element makes no pair.)
Index run_pixel(const PairPlan& plan, const PairLists& lists) {
  const bool dense = plan.exact() && plan.channels * fewest_columns(lists) > 1;
  return dense ? plan.channels : ceil_div(plan.channels, 2) * 2;
}

// Pairs of one output pixel, those that fill up steps among them, merged and not.
struct PairCounts {
  Index runs = 0, blocks = 0;
};

PairCounts count_pairs(const PairPlan& plan, const PairLists& lists) {
  PairCounts counts;
  const Index pixel = run_pixel(plan, lists), unit = plan.exact() ? 2 : kPairStep;
  for (const PassTaps& places : lists.places) {
    const auto rows = static_cast<Index>(places.rows.size());
    const auto columns = static_cast<Index>(places.columns.size());
    counts.runs += rows * ceil_div(columns * pixel, unit) * unit / 2;
    counts.blocks += rows * columns * ceil_div(plan.channels, kPairStep) * kPairStep / 2;
  }
  return counts;
}

bool is_single(const WindowProblem& w) {
  return w.kernel_size == Pair{1, 1} && w.stride == Pair{1, 1} && w.padding == Pair{0, 0} &&
         w.groups == 1 && w.input[1] == w.output[1] && w.input[2] == w.output[2];
}

// All pixels make one column: however small the images, blocks of rows are full.
void join_pixels(PairPlan& plan) {
  plan.height = plan.out_rows = plan.images * plan.height * plan.width;
  plan.images = plan.width = plan.out_columns = 1;
  // An odd number of elements must be padded, a row of whole steps may end with an earlier start.
  const bool whole = plan.channels % 2 == 0 || plan.channels >= kPairStep;
  plan.layout = whole ? PairLayout::kInPlace : PairLayout::kRuns;
  // Rows as far apart as pixels of an image may share few lines of the first-level cache: better
  // eight at a time than fourteen.
  plan.most_rows = kPairRows;
}

PairLayout layout_of(const WindowProblem& w, const PairPlan& plan, const PairLists& lists) {
  const PairCounts counts = count_pairs(plan, lists);
  return w.groups == 1 && neighbours(lists) && counts.runs < counts.blocks ? PairLayout::kRuns
                                                                           : PairLayout::kBlocks;
}

// Where the copy begins, and how wide it is.
void choose_copy(const PairLists& lists, PairPlan& plan) {
  Index last_row = 0, last_column = 0;
  plan.first_row = plan.first_column = 0;
  bool first = true;
  for (const PassTaps& places : lists.places) {
    const Index row = places.rows.front().input, column = places.columns.front().input;
    plan.first_row = first ? row : std::min(plan.first_row, row);
    plan.first_column = first ? column : std::min(plan.first_column, column);
    last_row = first ? places.rows.back().input : std::max(last_row, places.rows.back().input);
    last_column =
        first ? places.columns.back().input : std::max(last_column, places.columns.back().input);
    first = false;
  }
  const Index reach_rows = last_row - plan.first_row, reach = last_column - plan.first_column;
  switch (plan.layout) {
    case PairLayout::kInPlace:
      plan.pixel = plan.channels, plan.columns = 1;
      break;
    case PairLayout::kBlocks:
      plan.pixel = kPairStep;
      plan.columns = lists.most_columns() + reach / plan.stride[1];
      plan.more_rows = reach_rows / plan.stride[0];
      break;
    case PairLayout::kRuns:
      plan.pixel = run_pixel(plan, lists);
      plan.columns = (lists.most_columns() - 1) * plan.stride[1] + reach + 1;
      plan.more_rows = reach_rows;
      break;
  }
  plan.row_pitch = plan.columns * plan.pixel;
}

// Rows of an image's copy for so many output rows.
Index copied_rows(const PairPlan& plan, Index rows) {
  if (plan.layout == PairLayout::kRuns) return (rows - 1) * plan.stride[0] + 1 + plan.more_rows;
  return rows + plan.more_rows;
}

// The planes that some tap reads.
void find_planes(const PairLists& lists, const PairPlan& plan, std::vector<PairPlane>& planes) {
  if (plan.layout != PairLayout::kBlocks) {
    planes.push_back({0, 0});
    return;
  }
  for (const PassTaps& places : lists.places)
    for (const AxisTap& row : places.rows)
      for (const AxisTap& column : places.columns) {
        const PairPlane plane{(row.input - plan.first_row) % plan.stride[0],
                              (column.input - plan.first_column) % plan.stride[1]};
        const bool known = std::any_of(planes.begin(), planes.end(), [&](const PairPlane& other) {
          return other.row == plane.row && other.column == plane.column;
        });
        if (!known) planes.push_back(plane);
      }
}

// ---- Steps

// Where a tap's row and column lie in the copy, from the output pixel's own place.
Index tap_offset(const PairPlan& plan, const PairLists& lists, Index row, Index column) {
  const Index r = row - plan.first_row, c = column - plan.first_column;
  if (plan.layout == PairLayout::kRuns) return r * plan.row_pitch + c * plan.pixel;
  if (plan.layout == PairLayout::kInPlace) return 0;
  Index plane = 0;
  while (lists.planes[static_cast<std::size_t>(plane)].row != r % plan.stride[0] ||
         lists.planes[static_cast<std::size_t>(plane)].column != c % plan.stride[1])
    ++plane;
  return plane * plan.plane_pitch + r / plan.stride[0] * plan.row_pitch +
         c / plan.stride[1] * plan.pixel;
}

// A run that no step divides ends with one that begins earlier: it reads nothing beyond the run.
void add_run(const PairPlan& plan, Index offset, Index tap, Index length, PairLists& lists) {
  const Index step = plan.step_elements();
  for (Index at = 0; at < length; at += step) {
    const Index first = std::max<Index>(0, std::min(at, length - step));
    lists.offsets.push_back(offset + first);
    lists.steps.push_back({tap, first, at - first});
  }
}

// The 32-channel blocks of the input that a block of output channels reads.
struct ReadBlocks {
  Index first, count;
};

ReadBlocks blocks_read(const PairPlan& plan, Index block) {
  const Index last = std::min((block + 1) * kPairBlock, plan.out_channels) - 1;
  const Index begin = block * kPairBlock / plan.group_writes * plan.group_reads;
  const Index end = (last / plan.group_writes + 1) * plan.group_reads;
  return {begin / kPairStep, ceil_div(end, kPairStep) - begin / kPairStep};
}

void add_block_steps(const PairPlan& plan, const PassTaps& places, const ReadBlocks& read,
                     PairLists& lists) {
  // The cache lines of one block of channels serve all taps before the next block's turn.
  for (Index b = read.first; b < read.first + read.count; ++b) {
    Index tap = 0;
    for (const AxisTap& row : places.rows)
      for (const AxisTap& column : places.columns) {
        lists.offsets.push_back(b * plan.block_pitch +
                                tap_offset(plan, lists, row.input, column.input));
        lists.steps.push_back({tap++, b * kPairStep, 0});
      }
  }
}

void add_steps(const PairPlan& plan, std::size_t index, PairLists& lists) {
  PairPass& pass = lists.passes[index];
  const PassTaps& places = lists.places[index];
  pass.tap = static_cast<Index>(lists.taps.size());
  pass.step = static_cast<Index>(lists.offsets.size());
  for (const AxisTap& row : places.rows)
    for (const AxisTap& column : places.columns) lists.taps.push_back({row.kernel, column.kernel});
  const auto tap_columns = static_cast<Index>(places.columns.size());
  if (plan.layout == PairLayout::kRuns) {
    Index tap = 0;
    for (const AxisTap& row : places.rows) {
      add_run(plan, tap_offset(plan, lists, row.input, places.columns.front().input), tap,
              tap_columns * plan.pixel, lists);
      tap += tap_columns;
    }
  } else if (plan.layout == PairLayout::kInPlace) {
    add_run(plan, 0, 0, plan.pixel, lists);
  } else if (!plan.steps_differ) {
    add_block_steps(plan, places, {0, ceil_div(plan.channels, kPairStep)}, lists);
  } else {
    const Index all = ceil_div(plan.channels, kPairStep);
    Index most = 0;
    for (Index block = 0; block < plan.blocks(); ++block)
      most = std::max(most, blocks_read(plan, block).count);
    for (Index block = 0; block < plan.blocks(); ++block)
      add_block_steps(plan, places, {std::min(blocks_read(plan, block).first, all - most), most},
                      lists);
  }
  const Index lists_of_steps = plan.steps_differ ? plan.blocks() : 1;
  pass.steps = (static_cast<Index>(lists.offsets.size()) - pass.step) / lists_of_steps;
}

// Of all loads: no pass may read beyond its runs.
void choose_pairs(const PairLists& lists, PairPlan& plan) {
  Index shortest = kPairStep;
  if (plan.layout == PairLayout::kInPlace) shortest = std::min(shortest, plan.pixel);
  if (plan.layout == PairLayout::kRuns) {
    const Index run = plan.pixel * fewest_columns(lists);
    shortest = plan.exact() ? run : std::min(shortest, run);
    for (const PassTaps& places : lists.places)
      plan.merged_taps = std::max(plan.merged_taps, static_cast<Index>(places.columns.size()));
  }
  plan.pairs = ceil_div(shortest, 2), plan.odd = shortest % 2;
}

// ---- Chunks: borders depend on the shapes alone

Index copy_elements(const PairPlan& plan, const PairLists& lists, Index images, Index rows) {
  if (plan.layout == PairLayout::kInPlace) return 0;
  const Index planes = static_cast<Index>(lists.planes.size());
  const Index blocks =
      plan.layout == PairLayout::kBlocks ? ceil_div(plan.channels, kPairStep) : Index{1};
  return images * copied_rows(plan, rows) * plan.row_pitch * planes * blocks;
}

void choose_pair_chunks(const PairLists& lists, bool single, bool tiles, PairPlan& plan) {
  double image_flops = 0;
  Index weights = 0;
  for (std::size_t i = 0; i < lists.passes.size(); ++i) {
    const PassTaps& places = lists.places[i];
    const auto taps = static_cast<Index>(places.rows.size() * places.columns.size());
    const Index products = taps * plan.group_reads * plan.out_channels;
    image_flops += 2.0 * static_cast<double>(lists.passes[i].rows * lists.passes[i].columns) *
                   static_cast<double>(products);
    weights += products;
  }
  const Index rows = lists.most_rows(), blocks = plan.blocks();
  const bool large = weights > kLargeWeights;
  auto fits = [&](Index images, Index block) {
    return copy_elements(plan, lists, images, block) <= kCopyElements;
  };
  Index& block = plan.row_block;
  block = rows;
  if (single) {
    double pixels = kPairChunkFlops / (image_flops / static_cast<double>(rows));
    // AMX outruns weights that do not stay in L2: many pixels meet each block of them.
    if (large && tiles) pixels = static_cast<double>(kNearInput / plan.channels);
    block = static_cast<Index>(
        std::clamp(pixels, static_cast<double>(kLeastPixels), static_cast<double>(kMostPixels)));
    block = std::min(rows, block / kPairBlock * kPairBlock);
  }
  for (Index parts = 2; block > 1 && !fits(1, block); ++parts) block = ceil_div(rows, parts);
  auto chunk_flops = [&] {
    return image_flops * static_cast<double>(block * plan.image_block) /
           static_cast<double>(rows * plan.splits);
  };
  if (block == rows) {
    const double wanted = std::ceil(kPairChunkFlops / std::max(image_flops, 1.0));
    Index most = static_cast<Index>(std::min(wanted, static_cast<double>(plan.images)));
    if (large) most = std::max(most, std::min<Index>(plan.images, 4));
    if (plan.out_channels <= kPairBlock / 2 && tiles)
      most =
          std::min(most, ceil_div(kNarrowPixels, std::max<Index>(1, rows * lists.most_columns())));
    while (plan.image_block < most && fits(plan.image_block + 1, block)) ++plan.image_block;
  }
  auto coarse = [&] {
    const Index chunks =
        ceil_div(plan.images, plan.image_block) * ceil_div(rows, block) * plan.splits;
    return chunks < kPairChunks && chunk_flops() > 2 * kPairChunkFlops;
  };
  auto split_channels = [&] {
    while (coarse() && plan.splits * 2 <= blocks) plan.splits *= 2;
  };
  if (large) split_channels();
  const Index least = single ? 2 * kLeastPixels : 8;
  while (coarse() && block >= least) block = ceil_div(block, 2);
  split_channels();
  plan.image_blocks = ceil_div(plan.images, plan.image_block);
  plan.row_blocks = ceil_div(rows, block);
}

void settle_pitches(const PairLists& lists, PairPlan& plan) {
  plan.image_pitch = copied_rows(plan, plan.row_block) * plan.row_pitch;
  plan.plane_pitch = plan.image_block * plan.image_pitch;
  plan.block_pitch = static_cast<Index>(lists.planes.size()) * plan.plane_pitch;
  // The last 16 rows of an operand may begin at its last pixel. A column of fewer pixels than that
  // is copied, too.
  const Index slack = kPairRows * plan.row_step() + std::max(kPairStep, plan.step_elements());
  Index elements = copy_elements(plan, lists, plan.image_block, plan.row_block);
  if (plan.layout == PairLayout::kInPlace)
    elements = plan.height < kPairRows ? plan.height * plan.pixel : -slack;
  plan.copy_elements = ceil_div(elements + slack, 32) * 32;
  Index halves = 0;
  const Index most_rows = plan.part_blocks > 0 ? plan.height : plan.row_block;
  for (const PairPass& pass : lists.passes)
    for (Index rows = 1; rows <= std::min(most_rows, pass.rows); ++rows)
      halves = std::max(halves, plan.halves(rows, pass));
  plan.table_entries = ceil_div(plan.image_block * halves, 2) * (2 + kPairBlock);
}

// Rows of the weight are read together, and memory delivers fastest where each of them goes on for
// long. So a share that reads parts of all rows is as wide as its sums stay near.
Index wide_share(const PairPlan& plan, int threads) {
  const Index most = std::max(plan.part_blocks, kUnpackedSums / plan.block_values());
  const Index shares = ceil_div(ceil_div(plan.blocks(), most), Index{threads}) * threads;
  const Index blocks = ceil_div(plan.blocks(), shares);
  return ceil_div(blocks, plan.part_blocks) * plan.part_blocks;
}

// Small weights may as well stand in memory, and so may those that make few shares. `tiles`: for a
// unit that takes 16 rows at once.
void choose_parts(bool single, bool tiles, int threads, PairPlan& plan) {
  if (!single || plan.layout != PairLayout::kInPlace || plan.channels % kPairStep != 0) return;
  if (plan.channels * plan.out_channels <= kLargeWeights) return;
  if (plan.height > (tiles ? kUnpackedTileRows : kUnpackedRows)) return;
  // Rows of the weight are read half a kilobyte and more at a time.
  const Index blocks = plan.transposed ? 4 : 1;
  if (plan.blocks() < kUnpackedShares * blocks) return;
  plan.part_blocks = plan.share_blocks = blocks, plan.part_steps = plan.transposed ? 8 : 16;
  if (!tiles) return;
  plan.part_blocks = plan.transposed ? 8 : 1, plan.part_steps = plan.transposed ? 1 : 32;
  plan.share_blocks = plan.transposed ? wide_share(plan, std::max(threads, 1)) : 1;
}

void choose_epilogue(const WindowProblem& w, PairPlan& plan) {
  plan.extra = ExtraInputs(w);
  plan.activation = w.epilogue.activation;
  plan.slope = static_cast<float>(w.epilogue.slope);
}

}  // namespace

Kernel plan_pair_kernel(const WindowProblem& w, int threads, Index most_rows) {
  PairPlan plan;
  plan.most_rows = most_rows;
  plan.images = w.input[0], plan.height = w.input[1], plan.width = w.input[2];
  plan.channels = w.input[3];
  plan.out_rows = w.output[1], plan.out_columns = w.output[2], plan.out_channels = w.output[3];
  plan.out_stride = w.transposed ? w.stride : Pair{1, 1};
  plan.stride = w.transposed ? Pair{1, 1} : w.stride;
  plan.groups = w.groups;
  plan.group_reads = w.input[3] / w.groups, plan.group_writes = w.output[3] / w.groups;
  plan.kernel_size = w.kernel_size, plan.transposed = w.transposed;
  plan.steps_differ = w.groups > 1;
  choose_epilogue(w, plan);

  const bool single = is_single(w);
  if (single) join_pixels(plan);
  PairLists lists;
  find_passes(w, plan, lists);
  Index packed = kPairStep;  // never empty
  if (!lists.passes.empty()) {
    if (!single) plan.layout = layout_of(w, plan, lists);
    choose_copy(lists, plan);
    choose_pairs(lists, plan);
    find_planes(lists, plan, lists.planes);
    const bool tiles = most_rows == kPairRows;
    choose_pair_chunks(lists, single, tiles, plan);
    choose_parts(single, tiles, threads, plan);
    settle_pitches(lists, plan);
    packed = 0;
    for (std::size_t i = 0; i < lists.passes.size(); ++i) {
      add_steps(plan, i, lists);
      lists.passes[i].weights = packed;
      packed += plan.blocks() * lists.passes[i].steps * 2 * plan.half();
    }
    plan.pass_count = static_cast<Index>(lists.passes.size());
  }
  plan.step_count = static_cast<Index>(lists.offsets.size());
  plan.tap_count = static_cast<Index>(lists.taps.size());
  plan.plane_count = static_cast<Index>(lists.planes.size());

  Kernel kernel;
  const auto workers = static_cast<std::size_t>(std::max(threads, 1));
  kernel.scratch_bytes = static_cast<std::size_t>(plan.blocks() * kPairBlock) * sizeof(float);
  plan.measure = {w.measure, plan.image_blocks * plan.row_blocks, plan.out_channels, 0};
  plan.measure.reserve(kernel);
  kernel.scratch_bytes +=
      workers * (static_cast<std::size_t>(plan.copy_elements) * sizeof(BFloat16) +
                 static_cast<std::size_t>(plan.table_entries) * sizeof(Index));
  kernel.packed.input = 1;
  kernel.packed.bytes = static_cast<std::size_t>(packed) * sizeof(BFloat16);
  if (plan.part_blocks > 0)
    kernel.packed.unpacked_scratch_bytes =
        kernel.scratch_bytes +
        workers * (static_cast<std::size_t>(plan.part_elements()) * sizeof(BFloat16) +
                   static_cast<std::size_t>(plan.share_values()) * sizeof(float));
  kernel.in_place = {plan.extra.in_place()};
  // Pixels without a tap are cleared in one go.
  kernel.strided_outputs = plan.extra.free_output() && !plan.zero_fill && plan.pass_count > 0;
  append_to_plan(kernel.plan, &plan, 1);
  append_to_plan(kernel.plan, lists.passes.data(), static_cast<std::size_t>(plan.pass_count));
  append_to_plan(kernel.plan, lists.offsets.data(), lists.offsets.size());
  append_to_plan(kernel.plan, lists.steps.data(), lists.steps.size());
  append_to_plan(kernel.plan, lists.taps.data(), lists.taps.size());
  append_to_plan(kernel.plan, lists.planes.data(), lists.planes.size());
  return kernel;
}

}  // namespace pycnn::cpu
