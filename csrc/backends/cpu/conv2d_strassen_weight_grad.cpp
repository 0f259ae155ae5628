#include "backends/cpu/conv2d_strassen_weight_grad.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/strassen_grad.h"
#include "core/parallel.h"

#if PYCNN_HAVE_AVX512

namespace pycnn::cpu {
namespace {

constexpr Index kMinInputs = 128, kMinOutputs = 64;  // fewer do not repay the sums of the operands
constexpr Index kMinPixels = 256;
constexpr Index kInputStep = 64;   // whole blocks in both halves
constexpr Index kUnitPairs = 192;  // copies stay in L2, and each unit goes through all sums
constexpr Index kSplitFloats = 128 * 1024;  // of the gradient: seven quarters of them are summed
constexpr Index kMinSplit = 128, kMaxSplit = 512;  // output channels
constexpr Index kMaxParts = 16;
constexpr Index kMinPairs = 64;                 // of a part
constexpr Index kWantedChunks = 8;              // more only where their parts are long enough
constexpr Index kPartPairs = 768;               // repay that a part is written and read again
constexpr Index kPartFloats = 2 * 1024 * 1024;  // of all parts together
constexpr Index kAddedFloats = 16 * 1024;       // at a time
constexpr Index kGatheredAhead = 4;             // pixels
constexpr Index kLine = 16;                     // floats

Index whole_lines(Index floats) { return ceil_div(floats, kLine) * kLine; }

struct StrassenGradPlan {
  Index images = 0, rows = 0, columns = 0;  // of the gradient of the output
  Index height = 0, width = 0;              // of an image
  Index row_stride = 1, column_stride = 1;
  Index top = 0, left = 0;              // padding
  Index row_step = 1, column_step = 1;  // from tap to tap
  Index taps = 1, tap_columns = 1;
  Index in_channels = 0, out_channels = 0;
  Index gathered = 0;  // a tap's pixels are copied: they are not neighbours
  Index unit_pairs = 0, units = 0;
  Index parts = 1, splits = 1;  // of the units; of the panels
  Index bias = 0;
  Index panels = 0;  // in a half of the output channels
  // Of a worker.
  Index panel_floats = 0, block_floats = 0, gather_floats = 0, sum_floats = 0;
  Index workers = 1;

  Index pixels() const { return images * rows * columns; }
  Index pairs() const { return pixels() / 2; }
  Index part_floats() const { return out_channels * filter(); }
  Index filter() const { return taps * in_channels; }
  Index chunks() const { return parts * taps * splits; }
  Index part_pitch() const { return whole_lines(part_floats()); }
  Index worker_floats() const {
    return panel_floats + block_floats + gather_floats + kStrassenGradProducts * sum_floats;
  }
};
static_assert(std::has_unique_object_representations_v<StrassenGradPlan>);

// ---- Planning

void choose_cut(StrassenGradPlan& plan) {
  const Index split = std::clamp(kSplitFloats / plan.in_channels, kMinSplit, kMaxSplit);
  const Index most_parts = std::clamp<Index>(
      std::min(kPartFloats / plan.part_floats(), plan.pairs() / kMinPairs), 1, kMaxParts);
  auto parts_for = [&](Index splits) {
    const Index wanted =
        std::max(plan.pairs() / kPartPairs, ceil_div(kWantedChunks, splits * plan.taps));
    return std::clamp<Index>(wanted, 1, most_parts);
  };
  plan.splits = ceil_div(plan.out_channels, split);
  while (plan.splits * plan.taps * parts_for(plan.splits) < kWantedChunks &&
         plan.out_channels / (2 * plan.splits) >= kMinSplit)
    plan.splits *= 2;
  plan.splits = std::min(plan.splits, plan.panels);
  plan.parts = parts_for(plan.splits);
  // Equal ones: each unit goes through all sums.
  plan.units = plan.parts * ceil_div(plan.pairs(), plan.parts * kUnitPairs);
  plan.unit_pairs = ceil_div(plan.pairs(), plan.units);
  plan.units = ceil_div(plan.pairs(), plan.unit_pairs);
}

// ---- Running

struct StrassenGradTensors {
  const float* input;
  const float* grad_output;
  Index in_pixel, grad_pixel;  // floats from pixel to pixel
  float* grad_weight;
  float* grad_bias;
  float* workers;
  float* parts;
  float* bias_parts;

  float* part(const StrassenGradPlan& plan, Index i) const {
    return i == 0 ? grad_weight : parts + (i - 1) * plan.part_pitch();
  }
  float* bias_part(const StrassenGradPlan& plan, Index i) const {
    return i == 0 ? grad_bias : bias_parts + (i - 1) * plan.out_channels;
  }
};

// Copies the inputs that a tap has of `count` output pixels from `first` on; zeros are the padding.
void gather(const StrassenGradPlan& plan, const StrassenGradTensors& tensors, Index tap,
            Index first, Index count, float* to) {
  const std::size_t bytes = static_cast<std::size_t>(plan.in_channels) * sizeof(float);
  const Index down = tap / plan.tap_columns * plan.row_step - plan.top;
  const Index across = tap % plan.tap_columns * plan.column_step - plan.left;
  auto pixel = [&](Index p) -> const float* {
    const Index line = p / plan.columns, image = line / plan.rows;
    const Index row = line % plan.rows * plan.row_stride + down;
    const Index column = p % plan.columns * plan.column_stride + across;
    if (row < 0 || row >= plan.height || column < 0 || column >= plan.width) return nullptr;
    return tensors.input + ((image * plan.height + row) * plan.width + column) * tensors.in_pixel;
  };
  for (Index p = first; p < first + count; ++p, to += plan.in_channels) {
    // Those between are left out, which ends what the hardware foresees.
    if (const float* near = pixel(std::min(p + kGatheredAhead, first + count - 1)))
      for (Index at = 0; at < plan.in_channels; at += kLine) __builtin_prefetch(near + at);
    if (const float* from = pixel(p))
      std::memcpy(to, from, bytes);
    else
      std::memset(to, 0, bytes);
  }
}

// Output channels of each half, a share of its panels.
struct HalfOutputs {
  Index begin, end;
};

HalfOutputs outputs_of(const StrassenGradPlan& plan, Index split) {
  const Index half = plan.out_channels / 2;
  return {std::min(half, plan.panels * split / plan.splits * avx512::kGemmScalars),
          std::min(half, plan.panels * (split + 1) / plan.splits * avx512::kGemmScalars)};
}

void add_bias(const StrassenGradPlan& plan, const StrassenGradTensors& tensors,
              const HalfOutputs& outputs, Index first, Index count, bool accumulate,
              float* bias_part) {
  ColumnSums sums;
  sums.rows = 1, sums.columns = count, sums.b_column = tensors.grad_pixel;
  sums.n = outputs.end - outputs.begin, sums.accumulate = accumulate;
  for (const Index at : {outputs.begin, plan.out_channels / 2 + outputs.begin}) {
    sums.b = tensors.grad_output + first * tensors.grad_pixel + at;
    sums.sums = bias_part + at;
    avx512::column_sums(sums);
  }
}

// The last pixel of an odd number has no partner.
void add_last_pixel(const StrassenGradPlan& plan, const StrassenGradTensors& tensors,
                    const HalfOutputs& outputs, Index tap, float* part, float* gathered) {
  const Index pixel = plan.pixels() - 1;
  OuterTiles tiles;
  tiles.rows = tiles.columns = 1;
  tiles.b = tensors.input + pixel * tensors.in_pixel;
  if (plan.gathered) {
    gather(plan, tensors, tap, pixel, 1, gathered);
    tiles.b = gathered;
  }
  tiles.m = outputs.end - outputs.begin, tiles.n = plan.in_channels;
  tiles.c_pitch = plan.filter(), tiles.accumulate = true;
  for (const Index at : {outputs.begin, plan.out_channels / 2 + outputs.begin}) {
    tiles.a = tensors.grad_output + pixel * tensors.grad_pixel + at;
    tiles.c = part + at * plan.filter() + tap * plan.in_channels;
    avx512::outer_tiles(tiles);
  }
}

// The units of a part that a chunk is made of, its tap and its channels.
struct GradChunk {
  Index part, first, end, tap;
  HalfOutputs outputs;
};

GradChunk chunk_at(const StrassenGradPlan& plan, Index index) {
  const Index part = index / (plan.splits * plan.taps);
  return {part, plan.units * part / plan.parts, plan.units * (part + 1) / plan.parts,
          index / plan.splits % plan.taps, outputs_of(plan, index % plan.splits)};
}

// Where a unit is read.
void set_unit(const StrassenGradPlan& plan, const StrassenGradTensors& tensors,
              const HalfOutputs& outputs, Index unit, StrassenGradPairs& job) {
  const Index pair = unit * plan.unit_pairs;
  job.pairs = std::min(plan.unit_pairs, plan.pairs() - pair);
  job.grad = tensors.grad_output + 2 * pair * tensors.grad_pixel + outputs.begin;
  job.input = tensors.input + 2 * pair * tensors.in_pixel;
  job.outputs = outputs.end - outputs.begin;
}

// Has a unit come near while the one before it is multiplied. Pixels that are gathered stay away.
void fetch_unit(const StrassenGradPlan& plan, const StrassenGradPairs& unit,
                StrassenGradPairs& job) {
  const Index pixels = 2 * unit.pairs;
  // Slices have their pixels further apart than two halves: the lower one alone.
  const Index halves = unit.grad_pixel == plan.out_channels ? 2 : 1;
  job.fetch = {unit.grad, halves * pixels, unit.outputs, unit.grad_pixel / halves};
  if (!plan.gathered) job.fetch_other = {unit.input, pixels, plan.in_channels, unit.input_pixel};
}

void run_chunk(const StrassenGradPlan& plan, const StrassenGradTensors& tensors, Index index,
               float* scratch) {
  const GradChunk chunk = chunk_at(plan, index);
  const HalfOutputs& outputs = chunk.outputs;
  float* gathered = scratch + plan.panel_floats + plan.block_floats;

  StrassenGradPairs job;
  job.grad_pixel = tensors.grad_pixel;
  job.input_pixel = plan.gathered ? plan.in_channels : tensors.in_pixel;
  job.grad_half = plan.out_channels / 2, job.input_half = plan.in_channels / 2;
  job.inputs = plan.in_channels / 2;
  job.panels = scratch, job.block = scratch + plan.panel_floats;
  job.sums = gathered + plan.gather_floats, job.plane = plan.sum_floats;
  for (Index u = chunk.first; u < chunk.end; ++u) {
    set_unit(plan, tensors, outputs, u, job);
    job.fetch = job.fetch_other = {};
    // After the last unit, that of the chunk which this worker is likely to take next.
    const Index later = index + plan.workers;
    if (u + 1 < chunk.end || later < plan.chunks()) {
      StrassenGradPairs unit = job;
      if (u + 1 < chunk.end) {
        set_unit(plan, tensors, outputs, u + 1, unit);
      } else {
        const GradChunk next = chunk_at(plan, later);
        set_unit(plan, tensors, next.outputs, next.first, unit);
      }
      fetch_unit(plan, unit, job);
    }
    if (plan.gathered) {
      gather(plan, tensors, chunk.tap, 2 * u * plan.unit_pairs, 2 * job.pairs, gathered);
      job.input = gathered;
    }
    job.accumulate = u != chunk.first;
    avx512::strassen_grad_products(job);
    if (plan.bias && chunk.tap == 0)
      add_bias(plan, tensors, outputs, 2 * u * plan.unit_pairs, 2 * job.pairs, job.accumulate,
               tensors.bias_part(plan, chunk.part));
  }

  StrassenGradResult result;
  result.sums = job.sums, result.plane = job.plane;
  result.outputs = job.outputs, result.inputs = job.inputs;
  result.c_pitch = plan.filter(), result.c_half = job.grad_half * plan.filter();
  result.c =
      tensors.part(plan, chunk.part) + outputs.begin * plan.filter() + chunk.tap * plan.in_channels;
  avx512::strassen_grad_result(result);
  if (plan.pixels() % 2 == 0 || chunk.part + 1 < plan.parts) return;
  add_last_pixel(plan, tensors, outputs, chunk.tap, tensors.part(plan, chunk.part), gathered);
  if (plan.bias && chunk.tap == 0)
    add_bias(plan, tensors, outputs, plan.pixels() - 1, 1, true,
             tensors.bias_part(plan, chunk.part));
}

// Adds [begin, end) of all parts as a binary tree; the sum is in the first one.
template <class Part>
void add_parts(const StrassenGradPlan& plan, Part&& part, Index begin, Index end) {
  for (Index step = 1; step < plan.parts; step *= 2)
    for (Index i = 0; i + step < plan.parts; i += 2 * step)
      avx512::add_floats(part(i) + begin, part(i + step) + begin, end - begin);
}

void run_strassen_grad(const KernelArgs& args) noexcept {
  const StrassenGradPlan& plan = *reinterpret_cast<const StrassenGradPlan*>(args.plan);
  StrassenGradTensors tensors;
  tensors.input = args.inputs[0].as<const float>();
  tensors.grad_output = args.inputs[1].as<const float>();
  tensors.in_pixel = args.inputs[0].pitch(), tensors.grad_pixel = args.inputs[1].pitch();
  tensors.grad_weight = args.outputs[0].as<float>();
  tensors.grad_bias = plan.bias ? args.outputs[1].as<float>() : nullptr;
  tensors.workers = reinterpret_cast<float*>(args.scratch);
  tensors.parts = tensors.workers + plan.workers * plan.worker_floats();
  tensors.bias_parts = tensors.parts + (plan.parts - 1) * plan.part_pitch();
  auto body = [&](std::int64_t chunk, int worker) {
    run_chunk(plan, tensors, chunk, tensors.workers + worker * plan.worker_floats());
  };
  parallel_for(args.threads, plan.chunks(), body);
  if (plan.parts == 1) return;
  auto add_range = [&](std::int64_t begin, std::int64_t end) {
    add_parts(
        plan, [&](Index i) { return tensors.part(plan, i); }, begin, end);
  };
  parallel_ranges(args.threads, plan.part_floats(), kAddedFloats, add_range);
  if (plan.bias)
    add_parts(
        plan, [&](Index i) { return tensors.bias_part(plan, i); }, 0, plan.out_channels);
}

}  // namespace

const char* refuse_strassen(const WeightGradProblem& p) {
  if (p.groups > 1) return "channels are in groups";
  const Shape& image = p.input;
  const Shape& grad = p.grad_output;
  if (image[3] % kInputStep != 0) return "input channels are not a multiple of 64";
  if (grad[3] % 2 != 0) return "output channels cannot be halved";
  if (image[3] < kMinInputs) return "fewer than 128 input channels";
  if (grad[3] < kMinOutputs) return "fewer than 64 output channels";
  if (grad[0] * grad[1] * grad[2] < kMinPixels) return "fewer than 256 pixels";
  return nullptr;
}

Kernel make_strassen_weight_grad_kernel(const WeightGradProblem& p, int threads) {
  StrassenGradPlan plan;
  plan.images = p.grad_output[0], plan.rows = p.grad_output[1], plan.columns = p.grad_output[2];
  plan.height = p.input[1], plan.width = p.input[2];
  plan.row_stride = p.stride[0], plan.column_stride = p.stride[1];
  plan.top = p.padding[0], plan.left = p.padding[1];
  plan.row_step = p.dilation[0], plan.column_step = p.dilation[1];
  plan.taps = p.kernel_size[0] * p.kernel_size[1], plan.tap_columns = p.kernel_size[1];
  plan.in_channels = p.input[3], plan.out_channels = p.grad_output[3];
  // Strided ones may be as many as there are pixels: padding at the far sides.
  plan.gathered = plan.taps > 1 || plan.top > 0 || plan.left > 0 || plan.rows != plan.height ||
                  plan.columns != plan.width || (plan.row_stride > 1 && plan.rows > 1) ||
                  (plan.column_stride > 1 && plan.columns > 1);
  plan.bias = p.bias;
  plan.panels = ceil_div(plan.out_channels / 2, avx512::kGemmScalars);
  choose_cut(plan);
  plan.workers = std::max(threads, 1);

  const Index split_panels = ceil_div(plan.panels, plan.splits);
  const Index width = 2 * avx512::kGemmLanes;
  plan.panel_floats = whole_lines(split_panels * plan.unit_pairs * avx512::kStrassenPanel);
  plan.block_floats = whole_lines(plan.unit_pairs * width);
  plan.gather_floats = plan.gathered ? 2 * plan.unit_pairs * plan.in_channels : 0;
  plan.sum_floats = split_panels * avx512::kGemmScalars * plan.in_channels / 2;

  Kernel kernel;
  kernel.run = run_strassen_grad;
  const Index floats = plan.workers * plan.worker_floats() +
                       (plan.parts - 1) * (plan.part_pitch() + plan.out_channels * plan.bias);
  kernel.scratch_bytes = static_cast<std::size_t>(floats) * sizeof(float);
  kernel.strided_inputs = 0b11;
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu

#endif
