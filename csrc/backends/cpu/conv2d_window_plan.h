#pragma once
#include "backends/cpu/conv2d_grouped_tiles.h"
#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/conv2d_window.h"

// What the kernels of conv2d_window.cpp and conv2d_lanes.cpp know before they run: where the taps
// of each pass lie, how weights are packed, how the work is cut. Winograd's kernels share the
// activations.
namespace pycnn::cpu {

struct KernelTap {
  Index row, column;  // position in the weight
};

// The layouts that conv2d_lanes.h and conv2d_grouped.h describe; unused in the implicit GEMM.
struct Lanes {
  Index used = 0;
  Index grouped = 0;  // rows are copied as conv2d_grouped_tiles.h describes
  Index shared = 0;   // grouped: several groups share a vector
  Index planes = 0;   // grouped: rows are copied to planes, not to blocks
  Index flat = 0;     // a row of output is one run of floats; else pixels start at a vector each
  Index pattern = 0;  // floats until the output channels repeat, a multiple of the lanes
  Index width = 0;    // output channels whose rows are copied at a time
  Index plane_pitch = 0;  // from one read channel's (or block's) copy of a row to the next
};

// One list of taps and the output pixels that it serves.
struct Pass {
  Index first_row = 0, first_column = 0;  // first output pixel
  Index rows = 0, columns = 0;
  Index kernel_tap = 0, kernel_taps = 0;  // into the plan's list of weight positions
  // Into the plan's list of offsets, merged where possible; grouped: GroupRuns.
  Index tap = 0, taps = 0, run = 0;
  Index weights = 0;  // first float in the packed weight
};

// Followed in the plan's bytes by the passes, the offsets and the weight positions.
struct WindowPlan {
  ConvInput in;
  Index images = 0, input_image = 0;
  Index out_columns = 0, out_channels = 0, out_image = 0, out_pixels = 0;
  Pair out_stride = {1, 1};  // output pixels from one pixel of a pass to the next
  Index groups = 1, in_channels = 0, group_channels = 0;  // per group: read, written
  Pair kernel_size = {1, 1};
  Index transposed = 0;
  Index zero_fill = 0;                // some output pixels have no tap at all
  Index block_width = 0, blocks = 0;  // of output channels, per group
  Lanes lanes;
  Index image_block = 1, row_block = 1, image_blocks = 0, row_blocks = 0, splits = 1;
  Index fetch = 0;  // a flag: the pixels of the next chunk come near while one is computed
  Index worker_floats = 0;
  MeasurePlan measure;
  ExtraInputs extra;
  float slope = 0;
  TileActivation tile_activation = TileActivation::kIdentity;
  ActivationKind activation = ActivationKind::kIdentity;
  std::uint16_t unused[3] = {};
  Index pass_count = 0, offset_count = 0;

  const Pass* passes() const { return reinterpret_cast<const Pass*>(this + 1); }
  const Index* offsets() const { return reinterpret_cast<const Index*>(passes() + pass_count); }
  const KernelTap* kernel_taps() const {
    return reinterpret_cast<const KernelTap*>(offsets() + offset_count);
  }
  // Output channels of a group with their zero padding.
  Index padded_channels() const {
    const Index rest = group_channels % block_width;
    return group_channels - rest +
           (rest == 0                 ? 0
            : rest <= block_width / 2 ? block_width / 2
                                      : block_width);
  }
  Index group_weights(const Pass& pass) const {
    return pass.kernel_taps * in_channels * (lanes.used ? lanes.pattern : padded_channels());
  }
  Index weight_groups() const { return lanes.used ? 1 : groups; }
};

// An entry of the list of offsets of conv2d_grouped.cpp: neighbouring taps of one row, and the
// channels that they read in one block, or in planes.
struct GroupRun {
  Index offset, taps, channels;
};
constexpr Index kGroupRunIndices = sizeof(GroupRun) / sizeof(Index);

static_assert(std::has_unique_object_representations_v<Pass> &&
              std::has_unique_object_representations_v<MeasurePlan> &&
              std::has_unique_object_representations_v<ConvInput> &&
              std::has_unique_object_representations_v<Lanes>);

// Steps in the original weight from one position, read channel, written channel or group to the
// next.
struct WeightLayout {
  Index tap_pitch, read_pitch, write_pitch, group_pitch;
};
WeightLayout weight_layout(const WindowPlan& plan);

// Operands of one run.
struct WindowTensors {
  const float* input;
  const float* weights;
  const float* bias;
  const float* residual;
  const float* mask;
  float* output;
  Index input_pixel, output_pixel;  // floats from pixel to pixel
};

// What one chunk computes.
struct WindowChunk {
  Index image, images, row, rows;  // rows are those of a pass
  Index block, block_end;          // over all groups
};

// The bytes of Kernel::plan, and the kernel's wishes that follow from it. `run` is left open.
Kernel plan_window_kernel(const WindowProblem& window, const Lanes& lanes, Index lane_count,
                          int threads);

WindowTensors tensors_of(const ExtraInputs& extra, const KernelArgs& args);
Index chunk_count(const WindowPlan& plan);
WindowChunk chunk_at(const WindowPlan& plan, Index index);
// Has chunk `index`, just computed, measured if that is wanted.
void measure_chunk(const WindowPlan& plan, const Measure& measure, Index index);
// Of its blocks [block, block_end) alone.
void measure_chunk(const WindowPlan& plan, const Measure& measure, Index index, Index block,
                   Index block_end);
// First output element of a pass in this chunk.
Index output_start(const WindowPlan& plan, const WindowTensors& tensors, const WindowChunk& chunk,
                   const Pass& pass);
// Clears an output of float or BFloat16, when some of its pixels have no tap.
template <class T>
void zero_output(const WindowPlan& plan, T* output, int threads);

// Runs of `count` floats at `pitch` from each other.
struct FloatRuns {
  float* first;
  Index runs, count, pitch;
};
// The transcendental activations read the finished sums while they are still in cache.
void activate(ActivationKind kind, const ActivationFunctions& functions, const FloatRuns& runs);

// What of an activation the tiles do themselves; kIdentity when they leave it to `activate`.
TileActivation tile_activation(ActivationKind kind);

}  // namespace pycnn::cpu
