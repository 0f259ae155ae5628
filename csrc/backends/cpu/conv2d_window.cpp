#include "backends/cpu/conv2d_window.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

struct KernelTap {
  Index row, column;  // position in the weight
};

// One list of taps and the output pixels that it serves.
struct Pass {
  Index first_row = 0, first_column = 0;  // first output pixel
  Index rows = 0, columns = 0;
  Index kernel_tap = 0, kernel_taps = 0;  // into the plan's list of weight positions
  Index tap = 0, taps = 0, run = 0;       // into the plan's list of offsets, merged where possible
  Index weights = 0;                      // first float in the packed weight
};

// Followed in the plan's bytes by the passes, the offsets and the weight positions.
struct WindowPlan {
  ConvInput in;
  Index images = 0, input_image = 0;
  Index out_columns = 0, out_channels = 0, out_image = 0;
  Pair out_stride = {1, 1};  // output pixels from one pixel of a pass to the next
  Index groups = 1, in_channels = 0, group_channels = 0;  // per group: read, written
  Pair kernel_size = {1, 1};
  bool transposed = false;
  bool zero_fill = false;  // some output pixels have no tap at all
  Index block_width = 0, blocks = 0;
  Index image_block = 1, row_block = 1, image_blocks = 0, row_blocks = 0, splits = 1;
  Index worker_floats = 0;
  int bias_input = -1, residual_input = -1;
  TileActivation tile_activation = TileActivation::kIdentity;
  ActivationKind activation = ActivationKind::kIdentity;
  float slope = 0;
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
    return pass.kernel_taps * in_channels * padded_channels();
  }
};

// ---- Planning

struct AxisTap {
  Index kernel = 0;  // index in the weight
  Index input = 0;   // position relative to output index 0 of the pass
};

// Taps along one axis, ascending in the input, of the pass with this residue.
std::vector<AxisTap> axis_taps(const WindowProblem& w, int axis, Index residue) {
  std::vector<AxisTap> taps;
  const Index stride = w.stride[axis], dilation = w.dilation[axis], padding = w.padding[axis];
  for (Index k = 0; k < w.kernel_size[axis]; ++k) {
    if (!w.transposed) {
      taps.push_back({k, k * dilation - padding});
    } else {
      const Index distance = residue + padding - k * dilation;
      if (distance % stride == 0) taps.push_back({k, distance / stride});
    }
  }
  if (w.transposed) std::reverse(taps.begin(), taps.end());
  return taps;
}

bool contiguous(const std::vector<AxisTap>& taps) {
  for (std::size_t i = 1; i < taps.size(); ++i)
    if (taps[i].input != taps[i - 1].input + 1) return false;
  return true;
}

struct Lists {
  std::vector<Pass> passes;
  std::vector<Index> offsets;
  std::vector<KernelTap> kernel_taps;
};

struct PassTaps {
  std::vector<AxisTap> rows, columns;
};

void add_pass(const WindowPlan& plan, const Pass& place, const PassTaps& taps, bool merge,
              Lists& lists) {
  Pass pass = place;
  pass.kernel_tap = static_cast<Index>(lists.kernel_taps.size());
  pass.tap = static_cast<Index>(lists.offsets.size());
  const bool merged = merge && contiguous(taps.columns);
  for (const AxisTap& row : taps.rows)
    for (const AxisTap& column : taps.columns) {
      lists.kernel_taps.push_back({row.kernel, column.kernel});
      if (!merged || &column == &taps.columns.front())
        lists.offsets.push_back(plan.in.tap_offset(row.input, column.input));
    }
  pass.kernel_taps = static_cast<Index>(lists.kernel_taps.size()) - pass.kernel_tap;
  pass.taps = static_cast<Index>(lists.offsets.size()) - pass.tap;
  pass.run = plan.in_channels * (merged ? static_cast<Index>(taps.columns.size()) : 1);
  if (!lists.passes.empty())
    pass.weights =
        lists.passes.back().weights + plan.groups * plan.group_weights(lists.passes.back());
  lists.passes.push_back(pass);
}

// All passes that have taps and pixels; also settles how the input is read.
Lists make_passes(const WindowProblem& w, WindowPlan& plan) {
  plan.out_stride = w.transposed ? w.stride : Pair{1, 1};
  std::vector<PassTaps> taps;
  std::vector<Pass> places;
  for (Index row = 0; row < plan.out_stride[0]; ++row)
    for (Index column = 0; column < plan.out_stride[1]; ++column) {
      PassTaps both{axis_taps(w, 0, row), axis_taps(w, 1, column)};
      if (both.rows.empty() || both.columns.empty() || row >= w.output[1] ||
          column >= w.output[2]) {
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
    all_contiguous = all_contiguous && contiguous(taps[i].columns);
  }
  const bool merge = w.groups == 1 && all_contiguous && plan.in_channels < kMergeBelow;
  const Pair in_stride = w.transposed ? Pair{1, 1} : w.stride;
  plan.in = make_conv_input(w.input, in_stride, range, most, merge);
  for (std::size_t i = 0; i < taps.size(); ++i)
    add_pass(plan, places[i], taps[i], merge || (plan.in.direct && w.groups == 1), lists);
  return lists;
}

constexpr Index kBufferFloats = 96 * 1024;   // of a worker's copy of input rows: stays in L2
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
    weights += plan.groups * plan.group_weights(pass);
  }
  const Index all_blocks = plan.blocks * plan.groups;
  auto fits = [&](Index images, Index block) {
    return images * plan.in.buffer_floats(block) <= kBufferFloats;
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
  if (weights > kLargeWeights) split_channels();
  while (coarse() && block >= 8) block = ceil_div(block, 2);
  split_channels();
  plan.image_blocks = ceil_div(plan.images, plan.image_block);
  plan.row_blocks = ceil_div(rows, block);
  if (!plan.in.direct) {
    plan.worker_floats = plan.image_block * plan.in.buffer_floats(block);
    plan.worker_floats = ceil_div(plan.worker_floats, 16) * 16 + 16;
  }
}

// ---- Packing

// Weight of the given position, read channel and written channel of a group.
struct WeightLayout {
  Index tap_pitch, read_pitch, write_pitch, group_pitch;
};

WeightLayout weight_layout(const WindowPlan& plan) {
  const Index taps = plan.kernel_size[0] * plan.kernel_size[1];
  if (plan.transposed)  // reads OC / G channels, writes IC / G
    return {plan.group_channels, taps * plan.group_channels, 1,
            plan.in_channels * taps * plan.group_channels};
  return {plan.in_channels, 1, taps * plan.in_channels,
          plan.group_channels * taps * plan.in_channels};
}

// The part of a packed weight that one list of taps reads for one block of output channels.
struct PackedBlock {
  float* to;
  Index width, valid;  // floats per read channel; those that are no padding
};

PackedBlock packed_block(const WindowPlan& plan, float* packed, const Pass& pass, Index block) {
  const Index group = block / plan.blocks, first = block % plan.blocks * plan.block_width;
  PackedBlock result;
  result.width = std::min(plan.block_width, plan.padded_channels() - first);
  result.valid = std::min(result.width, plan.group_channels - first);
  result.to = packed + pass.weights + group * plan.group_weights(pass) +
              first * pass.kernel_taps * plan.in_channels;
  return result;
}

// Read channels follow one another in memory: whole cache lines of each output channel at a time.
void pack_rows(const WindowPlan& plan, const PackedBlock& block, const float* from,
               Index write_pitch, Index tap) {
  constexpr Index kRun = 16;
  float* to = block.to + tap * plan.in_channels * block.width;
  for (Index k = 0; k < plan.in_channels; k += kRun) {
    const Index run = std::min(kRun, plan.in_channels - k);
    for (Index c = 0; c < block.width; ++c) {
      float* lane = to + k * block.width + c;
      if (c < block.valid) {
        const float* source = from + c * write_pitch + k;
        for (Index i = 0; i < run; ++i) lane[i * block.width] = source[i];
      } else {
        for (Index i = 0; i < run; ++i) lane[i * block.width] = 0;
      }
    }
  }
}

// Written channels follow one another in memory.
void pack_columns(const WindowPlan& plan, const PackedBlock& block, const float* from,
                  Index read_pitch, Index tap) {
  float* to = block.to + tap * plan.in_channels * block.width;
  const std::size_t bytes = static_cast<std::size_t>(block.valid) * sizeof(float);
  for (Index k = 0; k < plan.in_channels; ++k, to += block.width, from += read_pitch) {
    std::memcpy(to, from, bytes);
    std::fill(to + block.valid, to + block.width, 0.0f);
  }
}

void pack_weights(const KernelArgs& args) noexcept {
  const WindowPlan& plan = *reinterpret_cast<const WindowPlan*>(args.plan);
  const float* weight = args.inputs[0].as<const float>();
  float* packed = args.outputs[0].as<float>();
  const WeightLayout layout = weight_layout(plan);
  const Index blocks = plan.blocks * plan.groups;
  auto pack_block = [&](std::int64_t item, int) {
    const Pass& pass = plan.passes()[item / blocks];
    const Index index = item % blocks;
    const PackedBlock block = packed_block(plan, packed, pass, index);
    const float* first = weight + index / plan.blocks * layout.group_pitch +
                         index % plan.blocks * plan.block_width * layout.write_pitch;
    for (Index t = 0; t < pass.kernel_taps; ++t) {
      const KernelTap& tap = plan.kernel_taps()[pass.kernel_tap + t];
      const float* from = first + (tap.row * plan.kernel_size[1] + tap.column) * layout.tap_pitch;
      if (layout.read_pitch == 1)
        pack_rows(plan, block, from, layout.write_pitch, t);
      else
        pack_columns(plan, block, from, layout.read_pitch, t);
    }
  };
  parallel_for(args.threads, plan.pass_count * blocks, pack_block);
}

// ---- Running

struct Tensors {
  const float* input;
  const float* weights;
  const float* bias;
  const float* residual;
  float* output;
};

Tensors tensors_of(const WindowPlan& plan, const KernelArgs& args) {
  auto optional = [&](int i) {
    return i < 0 ? nullptr : args.inputs[static_cast<std::size_t>(i)].as<const float>();
  };
  return {args.inputs[0].as<const float>(), args.inputs[1].as<const float>(),
          optional(plan.bias_input), optional(plan.residual_input), args.outputs[0].as<float>()};
}

// What one call of a chunk's body works on.
struct Chunk {
  Index image, images, row, rows;  // rows are those of a pass
  Index block, block_end;          // over all groups
};

Chunk chunk_at(const WindowPlan& plan, Index index) {
  const Index row_block = index % plan.row_blocks;
  const Index image_block = index / plan.row_blocks % plan.image_blocks;
  const Index split = index / (plan.row_blocks * plan.image_blocks);
  const Index blocks = plan.blocks * plan.groups;
  Chunk chunk;
  chunk.image = image_block * plan.image_block;
  chunk.images = std::min(plan.image_block, plan.images - chunk.image);
  chunk.row = row_block * plan.row_block;
  chunk.rows = plan.row_block;
  chunk.block = blocks * split / plan.splits;
  chunk.block_end = blocks * (split + 1) / plan.splits;
  return chunk;
}

// The transcendental activations read the finished sums while they are still in cache.
void activate(const WindowPlan& plan, const WindowKernels& kernels, const WindowTiles& tiles) {
  ActivationFunctions::Forward function = nullptr;
  switch (plan.activation) {
    case ActivationKind::kSigmoid:
      function = kernels.activation->sigmoid;
      break;
    case ActivationKind::kTanh:
      function = kernels.activation->tanh;
      break;
    case ActivationKind::kScaledTanh:
      function = kernels.activation->scaled_tanh;
      break;
    default:
      return;
  }
  const Index first = tiles.block_begin * plan.block_width;
  const Index count = std::min(tiles.block_end * plan.block_width, plan.group_channels) - first;
  const bool dense = count == tiles.output_column;
  for (Index n = 0; n < tiles.images; ++n)
    for (Index row = 0; row < tiles.rows; ++row) {
      float* p = tiles.output + n * tiles.output_image + row * tiles.output_row + first;
      if (dense)
        function(p, p, count * tiles.columns, 0);
      else
        for (Index column = 0; column < tiles.columns; ++column, p += tiles.output_column)
          function(p, p, count, 0);
    }
}

void run_pass(const WindowPlan& plan, const WindowKernels& kernels, const Tensors& tensors,
              const Chunk& chunk, const Pass& pass, const float* buffer) {
  const ConvInput& in = plan.in;
  const Index rows = std::min(chunk.rows, pass.rows - chunk.row);
  if (rows <= 0) return;
  const Index out_at =
      chunk.image * plan.out_image +
      ((pass.first_row + chunk.row * plan.out_stride[0]) * plan.out_columns + pass.first_column) *
          plan.out_channels;
  WindowTiles tiles;
  tiles.images = chunk.images, tiles.rows = rows, tiles.columns = pass.columns;
  tiles.input_image = in.direct ? plan.input_image : in.buffer_floats(plan.row_block);
  tiles.input_row = in.row_step(), tiles.input_column = in.column_step();
  tiles.taps = plan.offsets() + pass.tap, tiles.tap_count = pass.taps, tiles.run = pass.run;
  tiles.channels = plan.group_channels;
  tiles.output_image = plan.out_image;
  tiles.output_row = plan.out_stride[0] * plan.out_columns * plan.out_channels;
  tiles.output_column = plan.out_stride[1] * plan.out_channels;
  tiles.activation = plan.tile_activation, tiles.slope = plan.slope;
  const float* anchor =
      in.direct ? in.anchor(tensors.input + chunk.image * plan.input_image, chunk.row) : buffer;
  for (Index block = chunk.block; block < chunk.block_end;) {
    const Index group = block / plan.blocks, first = group * plan.blocks;
    const Index channel = group * plan.group_channels;
    tiles.block_begin = block - first;
    tiles.block_end = std::min(chunk.block_end - first, plan.blocks);
    tiles.input = anchor + group * plan.in_channels;
    tiles.weights = tensors.weights + pass.weights + group * plan.group_weights(pass);
    tiles.output = tensors.output + out_at + channel;
    tiles.bias = tensors.bias ? tensors.bias + channel : nullptr;
    tiles.residual = tensors.residual ? tensors.residual + out_at + channel : nullptr;
    kernels.tiles(tiles);
    activate(plan, kernels, tiles);
    block = first + tiles.block_end;
  }
}

void zero_output(const WindowPlan& plan, const Tensors& tensors, int threads) {
  auto clear = [&](std::int64_t begin, std::int64_t end) {
    std::fill(tensors.output + begin, tensors.output + end, 0.0f);
  };
  parallel_ranges(threads, plan.images * plan.out_image, 64 * 1024, clear);
}

void run_window(const KernelArgs& args, const WindowKernels& kernels) {
  const WindowPlan& plan = *reinterpret_cast<const WindowPlan*>(args.plan);
  const Tensors tensors = tensors_of(plan, args);
  if (plan.zero_fill) zero_output(plan, tensors, args.threads);
  auto run_chunk = [&](std::int64_t index, int worker) {
    const Chunk chunk = chunk_at(plan, index);
    float* buffer = nullptr;
    if (!plan.in.direct) {
      buffer = reinterpret_cast<float*>(args.scratch) + worker * plan.worker_floats;
      for (Index n = 0; n < chunk.images; ++n)
        plan.in.copy_rows(tensors.input + (chunk.image + n) * plan.input_image, chunk.row,
                          chunk.rows, buffer + n * plan.in.buffer_floats(plan.row_block));
    }
    for (Index p = 0; p < plan.pass_count; ++p)
      run_pass(plan, kernels, tensors, chunk, plan.passes()[p], buffer);
  };
  if (plan.pass_count == 0) return;
  parallel_for(args.threads, plan.image_blocks * plan.row_blocks * plan.splits, run_chunk);
}

constexpr WindowKernels kBaselineKernels = {baseline::kGemmLanes, baseline::window_tiles,
                                            &baseline::kActivation, "conv2d.implicit_gemm.baseline",
                                            "conv2d_grad_input.implicit_gemm.baseline"};
void run_baseline(const KernelArgs& args) noexcept { run_window(args, kBaselineKernels); }
#if PYCNN_HAVE_AVX2
constexpr WindowKernels kAvx2Kernels = {avx2::kGemmLanes, avx2::window_tiles, &avx2::kActivation,
                                        "conv2d.implicit_gemm.avx2",
                                        "conv2d_grad_input.implicit_gemm.avx2"};
void run_avx2(const KernelArgs& args) noexcept { run_window(args, kAvx2Kernels); }
#endif
#if PYCNN_HAVE_AVX512
constexpr WindowKernels kAvx512Kernels = {avx512::kGemmLanes, avx512::window_tiles,
                                          &avx512::kActivation, "conv2d.implicit_gemm.avx512",
                                          "conv2d_grad_input.implicit_gemm.avx512"};
void run_avx512(const KernelArgs& args) noexcept { run_window(args, kAvx512Kernels); }
#endif

}  // namespace

const WindowRun kWindowBaseline = {run_baseline, &kBaselineKernels};
#if PYCNN_HAVE_AVX2
const WindowRun kWindowAvx2 = {run_avx2, &kAvx2Kernels};
#endif
#if PYCNN_HAVE_AVX512
const WindowRun kWindowAvx512 = {run_avx512, &kAvx512Kernels};
#endif

Kernel make_window_kernel(const WindowProblem& w, int threads, const WindowRun& entry) {
  WindowPlan plan;
  plan.images = w.input[0];
  plan.input_image = w.input[1] * w.input[2] * w.input[3];
  plan.out_columns = w.output[2], plan.out_channels = w.output[3];
  plan.out_image = w.output[1] * w.output[2] * w.output[3];
  plan.groups = w.groups;
  plan.in_channels = w.input[3] / w.groups, plan.group_channels = w.output[3] / w.groups;
  plan.kernel_size = w.kernel_size, plan.transposed = w.transposed;
  plan.block_width = 2 * entry.kernels->lanes;
  plan.blocks = ceil_div(plan.group_channels, plan.block_width);
  int next_input = 2;
  if (w.bias) plan.bias_input = next_input++;
  if (w.epilogue.residual) plan.residual_input = next_input++;
  plan.activation = w.epilogue.activation;
  plan.slope = static_cast<float>(w.epilogue.slope);
  if (plan.activation == ActivationKind::kRelu) plan.tile_activation = TileActivation::kRelu;
  if (plan.activation == ActivationKind::kLeakyRelu)
    plan.tile_activation = TileActivation::kLeakyRelu;
  const Lists lists = make_passes(w, plan);
  plan.pass_count = static_cast<Index>(lists.passes.size());
  plan.offset_count = static_cast<Index>(lists.offsets.size());
  if (plan.pass_count > 0) choose_chunks(lists, plan);

  Kernel kernel;
  kernel.run = entry.run;
  const std::size_t workers = static_cast<std::size_t>(std::max(threads, 1));
  kernel.scratch_bytes = workers * static_cast<std::size_t>(plan.worker_floats) * sizeof(float);
  Index packed = 16;  // never empty
  for (const Pass& pass : lists.passes)
    packed = std::max(packed, pass.weights + plan.groups * plan.group_weights(pass));
  kernel.packed = {1, static_cast<std::size_t>(packed) * sizeof(float), pack_weights, 0,
                   w.transposed ? entry.kernels->transposed_format : entry.kernels->format};
  if (plan.residual_input >= 0) kernel.in_place = {1u << plan.residual_input};
  append_to_plan(kernel.plan, &plan, 1);
  append_to_plan(kernel.plan, lists.passes.data(), lists.passes.size());
  append_to_plan(kernel.plan, lists.offsets.data(), lists.offsets.size());
  append_to_plan(kernel.plan, lists.kernel_taps.data(), lists.kernel_taps.size());
  return kernel;
}

}  // namespace pycnn::cpu
