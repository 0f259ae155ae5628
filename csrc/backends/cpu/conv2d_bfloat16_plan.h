#pragma once
#include "backends/cpu/conv2d_bfloat16.h"
#include "backends/cpu/conv2d_measure.h"

// What the kernels of conv2d_bfloat16.cpp know before they run.
namespace pycnn::cpu {

// How the left operand lies in memory; conv2d_bfloat16.h explains the three.
enum class PairLayout : std::int64_t { kInPlace, kBlocks, kRuns };

// One load of the left operand: where it is, and which elements of the weight it meets.
struct PairStepPlan {
  Index tap = 0;    // the first one's number in the pass
  Index first = 0;  // position of element 0 in the run of that tap and those after it
  Index skip = 0;   // elements that the step before has covered already
};

// One list of taps and the output pixels that it serves.
struct PairPass {
  Index first_row = 0, first_column = 0;  // first output pixel
  Index rows = 0, columns = 0;
  Index tap = 0;  // into the plan's weight positions
  Index step = 0,
        steps = 0;    // into the plan's offsets and steps; each block of channels has its own
  Index weights = 0;  // first element in the packed weight
};

// A copied plane holds the pixels at one position modulo the stride.
struct PairPlane {
  Index row, column;
};

struct PairTap {
  Index row, column;  // position in the weight
};

// Followed in the plan's bytes by the passes, the offsets, the steps, the weight positions and the
// planes.
struct PairPlan {
  PairLayout layout = PairLayout::kInPlace;
  Index images = 0, height = 0, width = 0, channels = 0;  // of the input
  Index out_rows = 0, out_columns = 0, out_channels = 0;
  Pair out_stride = {1, 1};  // output pixels from one pixel of a pass to the next
  Pair stride = {1, 1};      // input pixels from one output pixel of a pass to the next
  Index first_row = 0, first_column = 0;  // of the topmost and leftmost tap of output pixel 0
  Index groups = 1, group_reads = 0, group_writes = 0;
  Pair kernel_size = {1, 1};
  Index transposed = 0;
  Index zero_fill = 0;  // some output pixels have no tap at all
  // Copies, counted in elements.
  Index pixel = 0;                   // from one pixel to the next
  Index columns = 0, row_pitch = 0;  // of a copied row
  Index more_rows = 0;               // of an image's copy beyond the output rows it serves
  Index image_pitch = 0, plane_pitch = 0, block_pitch = 0;
  Index merged_taps = 1;   // taps of one row that are one run
  Index pairs = 16;        // of a step
  Index odd = 0;           // its last pair begins with the second element of the one before
  Index steps_differ = 0;  // each block of output channels has its own steps
  Index image_block = 1, row_block = 1, image_blocks = 0, row_blocks = 0, splits = 1;
  Index most_rows = kPairRows;  // of a half: fewer where a unit takes rows one by one
  Index copy_elements = 0, table_entries = 0;  // of a worker
  // Of the weight, packed at a time where nobody has packed the whole: blocks of output channels
  // (0: never done) and steps. A worker takes shares of more blocks, all of them before the next
  // steps.
  Index part_blocks = 0, part_steps = 0, share_blocks = 0;
  MeasurePlan measure;
  ExtraInputs extra;
  float slope = 0;
  ActivationKind activation = ActivationKind::kIdentity;
  std::uint8_t unused[7] = {};
  Index pass_count = 0, step_count = 0, tap_count = 0, plane_count = 0;

  const PairPass* passes() const { return reinterpret_cast<const PairPass*>(this + 1); }
  const Index* offsets() const { return reinterpret_cast<const Index*>(passes() + pass_count); }
  const PairStepPlan* steps() const {
    return reinterpret_cast<const PairStepPlan*>(offsets() + step_count);
  }
  const PairTap* taps() const { return reinterpret_cast<const PairTap*>(steps() + step_count); }
  const PairPlane* planes() const { return reinterpret_cast<const PairPlane*>(taps() + tap_count); }

  Index blocks() const { return ceil_div(out_channels, kPairBlock); }
  Index half() const { return pairs * kPairBlock; }
  Index part_elements() const { return part_blocks * part_steps * 2 * half(); }
  // The sums of all rows of a block, and of a share's blocks.
  Index block_values() const {
    const Index halves = ceil_div(height, rows_of_half(height));
    return ceil_div(halves, Index{2}) * kPairBlock * kPairBlock;
  }
  Index share_values() const { return share_blocks * block_values(); }
  Index step_elements() const { return 2 * pairs - odd; }
  // Elements from one output pixel's row of the operand to the next one's.
  Index row_step() const { return layout == PairLayout::kRuns ? stride[1] * pixel : pixel; }
  // Pixels of the operand from one output row to the next, when all rows can be counted through;
  // else 0.
  Index through() const {
    if (layout != PairLayout::kRuns) return columns;
    return stride == Pair{1, 1} ? columns : 0;
  }
  // Whether a unit multiplies the wanted rows of a half alone.
  bool exact() const { return most_rows < kPairRows; }
  // Neighbours that one half takes of so many: then all halves have about as many.
  Index rows_of_half(Index count) const {
    return exact() ? ceil_div(count, ceil_div(count, most_rows)) : most_rows;
  }
  // Rows of the operand, in halves, that `rows` rows of a pass take.
  Index halves_by_row(Index rows, const PairPass& pass) const {
    return rows * ceil_div(pass.columns, most_rows);
  }
  Index counted_through(Index rows, const PairPass& pass) const {
    return (rows - 1) * through() + pass.columns;
  }
  Index halves_through(Index rows, const PairPass& pass) const {
    return ceil_div(counted_through(rows, pass), most_rows);
  }
  bool counts_through(Index rows, const PairPass& pass) const {
    if (exact()) return through() == pass.columns;  // no row between is computed in vain
    return through() > 0 && halves_through(rows, pass) <= halves_by_row(rows, pass);
  }
  Index halves(Index rows, const PairPass& pass) const {
    return counts_through(rows, pass) ? halves_through(rows, pass) : halves_by_row(rows, pass);
  }
};

static_assert(std::has_unique_object_representations_v<PairPass>);

// The bytes of Kernel::plan, and what follows from it; `run` and the packing function are left
// open. `most_rows`: of a half.
Kernel plan_pair_kernel(const WindowProblem& window, int threads, Index most_rows);

}  // namespace pycnn::cpu
