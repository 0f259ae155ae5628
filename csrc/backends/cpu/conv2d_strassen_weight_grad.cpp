#include "backends/cpu/conv2d_strassen_weight_grad.h"

#include <algorithm>
#include <array>

#include "backends/cpu/strassen_grad.h"
#include "core/parallel.h"

#if PYCNN_HAVE_AVX512

namespace pycnn::cpu {
namespace {

constexpr Index kMinInputs = 128, kMinOutputs = 64;  // fewer do not repay the sums of the operands
constexpr Index kMinPixels = 256;
constexpr Index kInputStep = 64;  // whole blocks in both halves
constexpr Index kUnitPairs = 64;  // all that a unit is multiplied with stays in L2
// Channels of a chunk, of each side: seven quarters of their products are summed.
constexpr Index kMinSplit = 128, kMaxSplit = 512;
constexpr Index kMaxParts = 16;
constexpr Index kMinPairs = 64;                 // of a part
constexpr Index kWantedChunks = 8;              // more only where their parts are long enough
constexpr Index kPartPairs = 768;               // repay that a part is written and read again
constexpr Index kPartFloats = 2 * 1024 * 1024;  // of all parts together
constexpr Index kAddedFloats = 16 * 1024;       // at a time
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
  Index scattered = 0;  // a tap's pixels are not neighbours
  Index unit_pairs = 0, units = 0;
  Index parts = 1, splits = 1, input_splits = 1;  // of the units, the panels and the inputs' blocks
  Index bias = 0;
  Index panels = 0;  // in a half of the output channels
  // Of a worker.
  Index panel_floats = 0, block_floats = 0, sum_floats = 0;
  Index workers = 1;

  Index pixels() const { return images * rows * columns; }
  Index pairs() const { return pixels() / 2; }
  Index part_floats() const { return out_channels * filter(); }
  Index filter() const { return taps * in_channels; }
  Index cuts() const { return taps * splits * input_splits; }
  Index chunks() const { return parts * cuts(); }
  Index part_pitch() const { return whole_lines(part_floats()); }
  Index worker_floats() const {
    return panel_floats + block_floats + kStrassenGradProducts * sum_floats;
  }
};
static_assert(std::has_unique_object_representations_v<StrassenGradPlan>);

// ---- Planning

void choose_cut(StrassenGradPlan& plan) {
  plan.input_splits = ceil_div(plan.in_channels, kMaxSplit);
  const Index most_parts = std::clamp<Index>(
      std::min(kPartFloats / plan.part_floats(), plan.pairs() / kMinPairs), 1, kMaxParts);
  auto parts_for = [&]() {
    const Index wanted = std::max(plan.pairs() / kPartPairs, ceil_div(kWantedChunks, plan.cuts()));
    return std::clamp<Index>(wanted, 1, most_parts);
  };
  plan.splits = ceil_div(plan.out_channels, kMaxSplit);
  while (plan.cuts() * parts_for() < kWantedChunks &&
         plan.out_channels / (2 * plan.splits) >= kMinSplit)
    plan.splits *= 2;
  plan.splits = std::min(plan.splits, plan.panels);
  plan.parts = parts_for();
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

// Where the inputs are that a tap has of `count` output pixels from `first` on; padding is nowhere.
void place_pixels(const StrassenGradPlan& plan, const StrassenGradTensors& tensors, Index tap,
                  Index first, Index count, Index* to) {
  const Index down = tap / plan.tap_columns * plan.row_step - plan.top;
  const Index across = tap % plan.tap_columns * plan.column_step - plan.left;
  for (Index p = first; p < first + count; ++p, ++to) {
    if (!plan.scattered) {
      *to = p * tensors.in_pixel;
      continue;
    }
    const Index line = p / plan.columns, image = line / plan.rows;
    const Index row = line % plan.rows * plan.row_stride + down;
    const Index column = p % plan.columns * plan.column_stride + across;
    const bool outside = row < 0 || row >= plan.height || column < 0 || column >= plan.width;
    *to =
        outside ? kNoPixel : ((image * plan.height + row) * plan.width + column) * tensors.in_pixel;
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

// The units of a part that a chunk is made of, its tap and its channels: of each half.
struct GradChunk {
  Index part, first, end, tap;
  HalfOutputs outputs;
  Index input, inputs;
};

GradChunk chunk_at(const StrassenGradPlan& plan, Index index) {
  const Index part = index / plan.cuts(), cut = index % plan.cuts();
  const Index blocks = plan.in_channels / kInputStep, width = kInputStep / 2;
  const Index split = cut % plan.input_splits;
  const Index begin = blocks * split / plan.input_splits;
  const Index end = blocks * (split + 1) / plan.input_splits;
  return {part,
          plan.units * part / plan.parts,
          plan.units * (part + 1) / plan.parts,
          cut / plan.input_splits / plan.splits,
          outputs_of(plan, cut / plan.input_splits % plan.splits),
          begin * width,
          (end - begin) * width};
}

// The last pixel of an odd number has no partner.
void add_last_pixel(const StrassenGradPlan& plan, const StrassenGradTensors& tensors,
                    const GradChunk& chunk, float* part) {
  const Index pixel = plan.pixels() - 1, half = plan.in_channels / 2;
  Index place;
  place_pixels(plan, tensors, chunk.tap, pixel, 1, &place);
  if (place == kNoPixel) return;
  OuterTiles tiles;
  tiles.rows = tiles.columns = 1;
  tiles.m = chunk.outputs.end - chunk.outputs.begin, tiles.n = chunk.inputs;
  tiles.c_pitch = plan.filter(), tiles.accumulate = true;
  for (const Index output : {chunk.outputs.begin, plan.out_channels / 2 + chunk.outputs.begin})
    for (const Index input : {chunk.input, half + chunk.input}) {
      tiles.a = tensors.grad_output + pixel * tensors.grad_pixel + output;
      tiles.b = tensors.input + place + input;
      tiles.c = part + output * plan.filter() + chunk.tap * plan.in_channels + input;
      avx512::outer_tiles(tiles);
    }
}

// What a unit reads, but the places of its pixels.
void set_unit(const StrassenGradPlan& plan, const StrassenGradTensors& tensors,
              const GradChunk& chunk, Index unit, StrassenGradUnit& job) {
  const Index pair = unit * plan.unit_pairs;
  job.pairs = std::min(plan.unit_pairs, plan.pairs() - pair);
  job.grad = tensors.grad_output + 2 * pair * tensors.grad_pixel + chunk.outputs.begin;
  job.input = tensors.input + chunk.input;
  job.outputs = chunk.outputs.end - chunk.outputs.begin, job.inputs = chunk.inputs;
}

void run_chunk(const StrassenGradPlan& plan, const StrassenGradTensors& tensors, Index index,
               float* scratch) {
  const GradChunk chunk = chunk_at(plan, index);
  const bool adds_bias = plan.bias && chunk.tap == 0 && chunk.input == 0;
  float* const part = tensors.part(plan, chunk.part);
  std::array<Index, 2 * kUnitPairs> pixels;

  StrassenGradUnit job;
  job.grad_pixel = tensors.grad_pixel, job.pixels = pixels.data();
  job.grad_half = plan.out_channels / 2, job.input_half = plan.in_channels / 2;
  job.panels = scratch, job.blocks = scratch + plan.panel_floats;
  job.sums = job.blocks + plan.block_floats, job.plane = plan.sum_floats;
  for (Index u = chunk.first; u < chunk.end; ++u) {
    const Index first = 2 * u * plan.unit_pairs;
    set_unit(plan, tensors, chunk, u, job);
    place_pixels(plan, tensors, chunk.tap, first, 2 * job.pairs, pixels.data());
    job.accumulate = u != chunk.first;
    avx512::strassen_grad_products(job);
    if (adds_bias)
      add_bias(plan, tensors, chunk.outputs, first, 2 * job.pairs, job.accumulate,
               tensors.bias_part(plan, chunk.part));
  }

  StrassenGradResult result;
  result.sums = job.sums, result.plane = job.plane;
  result.outputs = job.outputs, result.inputs = job.inputs;
  result.c_pitch = plan.filter(), result.c_lower = job.grad_half * plan.filter();
  result.c_right = job.input_half;
  result.c =
      part + chunk.outputs.begin * plan.filter() + chunk.tap * plan.in_channels + chunk.input;
  avx512::strassen_grad_result(result);
  if (plan.pixels() % 2 == 0 || chunk.part + 1 < plan.parts) return;
  add_last_pixel(plan, tensors, chunk, part);
  if (adds_bias)
    add_bias(plan, tensors, chunk.outputs, plan.pixels() - 1, 1, true,
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
  plan.scattered = plan.taps > 1 || plan.top > 0 || plan.left > 0 || plan.rows != plan.height ||
                   plan.columns != plan.width || (plan.row_stride > 1 && plan.rows > 1) ||
                   (plan.column_stride > 1 && plan.columns > 1);
  plan.bias = p.bias;
  plan.panels = ceil_div(plan.out_channels / 2, avx512::kGemmScalars);
  choose_cut(plan);
  plan.workers = std::max(threads, 1);

  const Index split_panels = ceil_div(plan.panels, plan.splits);
  const Index inputs = ceil_div(plan.in_channels / kInputStep, plan.input_splits) * kInputStep / 2;
  plan.panel_floats = avx512::strassen_grad_panel_floats(plan.unit_pairs);
  plan.block_floats = avx512::strassen_grad_block_floats(plan.unit_pairs, inputs);
  plan.sum_floats = split_panels * avx512::kGemmScalars * inputs;

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
