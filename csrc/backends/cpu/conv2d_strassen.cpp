#include "backends/cpu/conv2d_strassen.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/conv2d_norm_input.h"
#include "backends/cpu/conv2d_window_plan.h"
#include "backends/cpu/strassen.h"
#include "core/parallel.h"

#if PYCNN_HAVE_AVX512

namespace pycnn::cpu {
namespace {

// Where the pixels of an image lie that are multiplied, or written.
struct PixelGrid {
  Index image = 0, row = 0, column = 0;  // pixels from one to the next

  Index at(Index image_index, Index row_index, Index column_index) const {
    return image_index * image + row_index * row + column_index * column;
  }
};

struct StrassenPlan {
  Index images = 0, rows = 0, columns = 0;
  PixelGrid in, out;
  Index in_channels = 0, out_channels = 0;
  Index levels = 1;
  Index blocks = 0;  // of the output channels of one part
  Index pitch = 0;   // of the sums of a pair, or two, in floats
  Index chunk_pairs = 0, chunks = 0;
  Index splits = 1;   // of the blocks
  Index threads = 1;  // that there is scratch for
  Index transposed = 0;
  Index zero_fill = 0;  // some output pixels are none of these
  MeasurePlan measure;
  NormInputPlan norm;  // of the input
  ExtraInputs extra;
  float slope = 0;
  TileActivation tile_activation = TileActivation::kIdentity;
  ActivationKind activation = ActivationKind::kIdentity;
  std::uint16_t unused[3] = {};

  Index parts() const { return strassen_parts(levels); }
  Index products() const { return strassen_products(levels); }
  Index part() const { return in_channels / parts(); }
  Index out_part() const { return out_channels / parts(); }
  Index set() const { return levels; }  // pairs that are multiplied together
  Index pixels() const { return rows * columns; }
  Index image_pairs() const { return ceil_div(pixels(), Index{2}); }
  Index pairs() const { return images * image_pairs(); }
  Index plane() const { return chunk_pairs / set() * pitch; }
  Index chunk_floats() const { return products() * plane(); }
  // Whether the pixels that are read follow one another.
  bool reads_all() const { return in.column == 1 && in.row == columns && in.image == pixels(); }
  // Sums are made before all else where several shares of the blocks need them.
  bool shared() const { return splits > 1; }
  Index packed_floats() const { return products() * part() * out_part(); }
};
static_assert(std::has_unique_object_representations_v<PixelGrid>);

// ---- Planning

constexpr Index kOutputBlock = avx512::kStrassenBlock;
constexpr Index kMinChannels = 128;  // fewer do not repay the sums
constexpr Index kMinPixels = 128;    // fewer do not repay that weights grow, to up to three times
// Gradients belong to batches, whose images share the weights.
constexpr Index kMinGradientPixels = 16;
constexpr Index kChannelStep = 2 * kOutputBlock;  // whole blocks in both halves
static_assert(kChannelStep == 64, "the reason for refusing says so");
// A second level: with fewer channels read it is as fast as one.
constexpr Index kTwoLevelInputs = 256;
constexpr Index kTwoLevelStep = 4 * 16;  // whole lines in all parts
constexpr Index kSumFloats = 84 * 1024;  // of a chunk: stays in L2 beside a block of weights
constexpr Index kLine = 16;              // floats
constexpr Index kWantedShares = 16;

void choose_chunks(StrassenPlan& plan) {
  const Index tile_pairs = avx512::kStrassenPairs * plan.set();
  const Index fitting = kSumFloats / (plan.products() * plan.pitch) * plan.set();
  const Index most = std::max(fitting / tile_pairs, Index{1}) * tile_pairs;
  plan.chunk_pairs = std::max(std::min(most, plan.pairs()), plan.set());
  auto chunks = [&] { return ceil_div(plan.pairs(), plan.chunk_pairs); };
  while (chunks() < kWantedShares && plan.chunk_pairs > 2 * tile_pairs)
    plan.chunk_pairs = ceil_div(plan.chunk_pairs / 2, tile_pairs) * tile_pairs;
  plan.chunks = chunks();
  // Equal shares.
  plan.chunk_pairs =
      std::max(ceil_div(plan.pairs(), std::max(plan.chunks, Index{1}) * plan.set()), Index{1}) *
      plan.set();
  while (plan.chunks * plan.splits < kWantedShares && plan.splits * 2 <= plan.blocks)
    plan.splits *= 2;
}

// ---- Packing

constexpr Index kPackedChannels = 32;  // input channels at a time
// Weights that no cache near a core keeps go past it: their lines are not read first.
constexpr Index kStreamedFloats = 256 * 1024;

// Asks for what a block is packed from: short runs, which the hardware does not foresee.
void fetch_block(const StrassenPlan& plan, const float* weight, Index channel, Index first,
                 Index count) {
  const Index rows = plan.transposed ? count : kOutputBlock;
  const Index floats = plan.transposed ? kOutputBlock : count;
  const Index pitch = plan.transposed ? plan.out_channels : plan.in_channels;
  for (Index i = 0; i < plan.parts(); ++i)
    for (Index o = 0; o < plan.parts(); ++o) {
      const Index in = i * plan.part() + first, out = o * plan.out_part() + channel;
      const float* row = weight + (plan.transposed ? in * pitch + out : out * pitch + in);
      for (Index r = 0; r < rows; ++r, row += pitch)
        for (Index at = 0; at < floats; at += kLine) __builtin_prefetch(row + at, 0, 2);
    }
}

// What the inner products of a block meet, of some of the channels that are read in each part.
void pack_block(const StrassenPlan& plan, const float* weight, Index channel, Index first,
                Index count, float* packed) {
  const Index part = plan.part(), product = part * kOutputBlock;
  const bool streamed = plan.packed_floats() >= kStreamedFloats;
  alignas(64) float turned[4][kPackedChannels * kOutputBlock];
  // Of those that are read and those that are written, the parts (in, out) and so many further on.
  auto pack = [&](Index in_part, Index out_part, Index step, float* to, Index pitch) {
    auto block = [&](Index i, Index o) -> const float* {
      const Index in = (in_part + i * step) * part + first;
      const Index out = (out_part + o * step) * plan.out_part() + channel;
      if (plan.transposed) return weight + in * plan.out_channels + out;
      float* copy = turned[2 * i + o];
      avx512::strassen_turn(weight + out * plan.in_channels + in, plan.in_channels, count, copy);
      return copy;
    };
    StrassenWeights job;
    job.b11 = block(0, 0), job.b12 = block(0, 1), job.b21 = block(1, 0), job.b22 = block(1, 1);
    job.pitch = plan.transposed ? plan.out_channels : kOutputBlock;
    job.count = count, job.packed = to, job.product = pitch;
    job.streamed = streamed && to == packed;
    avx512::strassen_weights(job);
  };
  fetch_block(plan, weight, channel, first, count);
  if (plan.levels == 1) return pack(0, 0, 1, packed, product);
  constexpr Index kFloats = kPackedChannels * kOutputBlock;
  alignas(64) float outer[4][kStrassenProducts * kFloats];
  for (Index i = 0; i < 2; ++i)
    for (Index o = 0; o < 2; ++o) pack(i, o, 2, outer[2 * i + o], kFloats);
  for (Index p = 0; p < kStrassenProducts; ++p) {
    StrassenWeights job;
    job.b11 = outer[0] + p * kFloats, job.b12 = outer[1] + p * kFloats;
    job.b21 = outer[2] + p * kFloats, job.b22 = outer[3] + p * kFloats;
    job.pitch = kOutputBlock, job.count = count;
    job.packed = packed + p * kStrassenProducts * product, job.product = product;
    job.streamed = streamed;
    avx512::strassen_weights(job);
  }
}

void pack_weights(const KernelArgs& args) noexcept {
  const StrassenPlan& plan = *reinterpret_cast<const StrassenPlan*>(args.plan);
  const float* weight = args.inputs[0].as<const float>();
  float* packed = args.outputs[0].as<float>();
  const Index stretches = ceil_div(plan.part(), kPackedChannels);
  auto pack = [&](std::int64_t index, int) {
    const Index block = index / stretches, first = index % stretches * kPackedChannels;
    pack_block(plan, weight, block * kOutputBlock, first,
               std::min(kPackedChannels, plan.part() - first),
               packed + (block * plan.products() * plan.part() + first) * kOutputBlock);
  };
  parallel_for(args.threads, plan.blocks * stretches, pack);
}

// ---- Running

struct StrassenChunk {
  Index first, pairs;
  Index block, block_end;
};

StrassenChunk chunk_at(const StrassenPlan& plan, Index index) {
  StrassenChunk chunk;
  chunk.first = index % plan.chunks * plan.chunk_pairs;
  chunk.pairs = std::min(plan.chunk_pairs, plan.pairs() - chunk.first);
  const Index split = index / plan.chunks;
  chunk.block = plan.blocks * split / plan.splits;
  chunk.block_end = plan.blocks * (split + 1) / plan.splits;
  return chunk;
}

// Where the pixels of a chunk's pairs are.
void list_pairs(const StrassenPlan& plan, const WindowTensors& tensors, const StrassenChunk& chunk,
                PixelPair* pairs) {
  const Index image_pairs = plan.image_pairs();
  Index image = chunk.first / image_pairs;
  Index pixel = chunk.first % image_pairs * 2;
  Index row = pixel / plan.columns, column = pixel % plan.columns;
  auto advance = [&] {
    if (++column == plan.columns) column = 0, ++row;
  };
  for (Index p = 0; p < chunk.pairs; ++p) {
    PixelPair& pair = pairs[p];
    pair.in_first = plan.in.at(image, row, column) * tensors.input_pixel;
    pair.out_first = plan.out.at(image, row, column) * tensors.output_pixel;
    advance();
    if (row == plan.rows) {
      pair.in_second = pair.out_second = kNoPixel;
    } else {
      pair.in_second = plan.in.at(image, row, column) * tensors.input_pixel;
      pair.out_second = plan.out.at(image, row, column) * tensors.output_pixel;
      advance();
    }
    if (row == plan.rows) row = column = 0, ++image;
  }
}

// The first pixel of a pair, all images counted.
Index pixel_of(const StrassenPlan& plan, Index pair) {
  const Index image = pair / plan.image_pairs();
  return std::min(image * plan.pixels() + pair % plan.image_pairs() * 2,
                  plan.images * plan.pixels());
}

// The pixels of a chunk, where they follow one another at a pitch.
LineRuns read_pixels(const StrassenPlan& plan, const float* input, Index pitch, Index index) {
  if (!plan.reads_all() || input == nullptr) return {};
  const StrassenChunk chunk = chunk_at(plan, index);
  const Index first = pixel_of(plan, chunk.first), end = pixel_of(plan, chunk.first + chunk.pairs);
  return {input + first * pitch, end - first, plan.in_channels, pitch};
}

// The transcendental activations read finished sums while they are still in cache.
void activate_chunk(const StrassenPlan& plan, const WindowTensors& tensors,
                    const StrassenChunk& chunk, const PixelPair* pairs) {
  if (plan.activation == ActivationKind::kIdentity ||
      tile_activation(plan.activation) != TileActivation::kIdentity)
    return;
  const Index first = chunk.block * kOutputBlock;
  const Index count = chunk.block_end * kOutputBlock - first;
  for (Index p = 0; p < chunk.pairs; ++p)
    for (const Index at : {pairs[p].out_first, pairs[p].out_second}) {
      if (at == kNoPixel) continue;
      // Those of all parts, as runs.
      activate(plan.activation, avx512::kActivation,
               {tensors.output + at + first, plan.parts(), count, plan.out_part()});
    }
}

// What measuring a chunk of all channels reads beside the results.
LineRuns measured_pixels(const StrassenPlan& plan, const Measure& measure,
                         const StrassenChunk& chunk) {
  const float* const input = measure.norm_input();
  if (input == nullptr || plan.splits > 1) return {};
  const Index first = pixel_of(plan, chunk.first), end = pixel_of(plan, chunk.first + chunk.pairs);
  return {input + first * plan.out_channels, end - first, plan.out_channels, plan.out_channels};
}

// What is measured are pixels that follow one another.
void measure_share(const StrassenPlan& plan, const Measure& measure, Index share,
                   const StrassenChunk& chunk) {
  if (!measure.wanted()) return;
  const Index pixel = pixel_of(plan, chunk.first);
  const Index pixels = pixel_of(plan, chunk.first + chunk.pairs) - pixel;
  auto take = [&](Index first_channel, Index channels) {
    MeasuredPart part(measure, share % plan.chunks, first_channel, channels);
    part.add(pixel, pixels);
  };
  const Index first = chunk.block * kOutputBlock;
  const Index channels = chunk.block_end * kOutputBlock - first;
  if (channels == plan.out_part()) return take(0, plan.out_channels);
  for (Index part = 0; part < plan.parts(); ++part) take(part * plan.out_part() + first, channels);
}

// The kernel's scratch: the sums of chunks, and of each worker what pixels that there are not would
// be, and the list of its pairs.
struct StrassenScratch {
  Index sum_sets, sum_floats, spare_floats, chunk_pairs;
  float* first = nullptr;

  StrassenScratch(const StrassenPlan& plan, Index threads)
      : sum_sets(plan.shared() ? plan.chunks : threads),
        sum_floats(plan.chunk_floats()),
        spare_floats(ceil_div(plan.out_channels, kLine) * kLine),
        chunk_pairs(plan.chunk_pairs) {}

  Index floats(Index threads) const { return sum_sets * sum_floats + threads * spare_floats; }
  std::size_t bytes(Index threads) const {
    return static_cast<std::size_t>(floats(threads)) * sizeof(float) +
           static_cast<std::size_t>(threads * chunk_pairs) * sizeof(PixelPair);
  }
  float* sums(Index set) const { return first + set * sum_floats; }
  float* spare(Index worker) const { return first + sum_sets * sum_floats + worker * spare_floats; }
  PixelPair* pairs(Index worker, Index threads) const {
    return reinterpret_cast<PixelPair*>(first + floats(threads)) + worker * chunk_pairs;
  }
};

void run_strassen(const KernelArgs& args) noexcept {
  const StrassenPlan& plan = *reinterpret_cast<const StrassenPlan*>(args.plan);
  const NormInput norm(plan.norm, args, avx512::kBatchNorm);
  const KernelArgs own = norm.own();
  WindowTensors tensors = tensors_of(plan.extra, own);
  const bool normed = plan.norm.wanted();
  if (normed) tensors.input = norm.made();
  if (plan.zero_fill) {
    auto clear = [&](std::int64_t begin, std::int64_t end) {
      std::fill(tensors.output + begin, tensors.output + end, 0.0f);
    };
    parallel_ranges(args.threads, plan.images * plan.out.image * plan.out_channels, 64 * 1024,
                    clear);
  }
  const Index workers = plan.threads;
  StrassenScratch scratch(plan, workers);
  scratch.first = reinterpret_cast<float*>(args.scratch);
  auto make_sums = [&](const StrassenChunk& chunk, const PixelPair* pairs, float* to) {
    if (normed) {
      const Index first = pixel_of(plan, chunk.first);
      norm.make(first, pixel_of(plan, chunk.first + chunk.pairs) - first);
    }
    avx512::strassen_sums({tensors.input, pairs, chunk.pairs, plan.part(), to, plan.pitch,
                           plan.plane(), plan.levels});
  };
  if (plan.shared()) {
    auto sum_chunk = [&](std::int64_t index, int worker) {
      const StrassenChunk chunk = chunk_at(plan, index);
      PixelPair* pairs = scratch.pairs(worker, workers);
      list_pairs(plan, tensors, chunk, pairs);
      make_sums(chunk, pairs, scratch.sums(index));
    };
    parallel_for(args.threads, plan.chunks, sum_chunk);
  }
  const Index shares = plan.chunks * plan.splits;
  const Measure measure(plan.measure, own, &avx512::kBatchNorm);
  auto run_share = [&](std::int64_t index, int worker) {
    const StrassenChunk chunk = chunk_at(plan, index);
    PixelPair* pairs = scratch.pairs(worker, workers);
    list_pairs(plan, tensors, chunk, pairs);
    float* sums = scratch.sums(plan.shared() ? index % plan.chunks : worker);
    if (!plan.shared()) make_sums(chunk, pairs, sums);
    StrassenTiles tiles;
    tiles.sums = sums, tiles.pitch = plan.pitch, tiles.plane = plan.plane();
    tiles.pairs = pairs, tiles.count = chunk.pairs, tiles.part = plan.part();
    tiles.weights = tensors.weights;
    tiles.block_begin = chunk.block, tiles.block_end = chunk.block_end;
    tiles.out_part = plan.out_part(), tiles.levels = plan.levels;
    tiles.output = tensors.output, tiles.bias = tensors.bias, tiles.residual = tensors.residual;
    tiles.mask = tensors.mask;
    tiles.activation = plan.tile_activation, tiles.slope = plan.slope;
    tiles.spare = scratch.spare(worker);
    // As a rule other threads take the chunks between.
    if (!plan.shared() && index + args.threads < shares) {
      const float* const first = normed ? norm.first() : tensors.input;
      tiles.fetch = read_pixels(plan, first, tensors.input_pixel, index + args.threads);
      tiles.fetch_more =
          read_pixels(plan, norm.second(), tensors.input_pixel, index + args.threads);
    }
    tiles.fetch_measured = measured_pixels(plan, measure, chunk);
    avx512::strassen_tiles(tiles);
    activate_chunk(plan, tensors, chunk, pairs);
    measure_share(plan, measure, index, chunk);
  };
  parallel_for(args.threads, shares, run_share);
  measure.finish();
}

bool absorb_norm(Kernel& kernel, const Op&, const Neighbour& neighbour) noexcept {
  if (neighbour.is_reader || neighbour.place != 0) return false;
  StrassenPlan plan;
  std::memcpy(&plan, kernel.plan.data(), sizeof plan);
  if (!plan.reads_all()) return false;
  const ExtraInputs& extra = plan.extra;
  std::size_t inputs = 2;
  for (const int optional : {extra.bias, extra.residual, extra.mask}) inputs += optional >= 0;
  if (plan.measure.kind == MeasureKind::kSums) inputs += kMeasuredNormInputs;
  const std::size_t outputs = plan.measure.kind == MeasureKind::kNothing ? 1 : 2;
  try {
    if (!plan.norm.take(kernel, neighbour, inputs, outputs)) return false;
  } catch (const std::bad_alloc&) {
    return false;
  }
  std::memcpy(kernel.plan.data(), &plan, sizeof plan);
  return true;
}

// Pixels of the image with few, of which those of the other are every stride-th.
bool all_inside(const WindowProblem& w) {
  const Shape& few = w.transposed ? w.input : w.output;
  const Shape& many = w.transposed ? w.output : w.input;
  return (few[1] - 1) * w.stride[0] < many[1] && (few[2] - 1) * w.stride[1] < many[2];
}

// All pairs of an image come in twos then, and all parts in whole blocks.
bool two_levels_pay(const WindowProblem& w, Index pixels) {
  return w.input[3] >= kTwoLevelInputs && w.input[3] % kTwoLevelStep == 0 &&
         w.output[3] % (4 * kOutputBlock) == 0 && pixels % 4 == 0 && pixels >= kMinPixels;
}

}  // namespace

const char* refuse_strassen(const WindowProblem& w) {
  if (w.kernel_size != Pair{1, 1}) return "the window is not 1x1";
  if (w.groups != 1) return "there are groups";
  if (w.padding != Pair{0, 0}) return "there is padding";
  if (!all_inside(w)) return "there is padding behind the last pixel";
  if (std::min(w.input[3], w.output[3]) < kMinChannels) return "fewer than 128 channels";
  if (w.input[3] % 2 != 0) return "an odd number of channels is read";
  if (w.output[3] % kChannelStep != 0) return "channels written are no multiple of 64";
  const Index pixels = w.transposed ? w.input[1] * w.input[2] : w.output[1] * w.output[2];
  if (pixels < (w.transposed ? kMinGradientPixels : kMinPixels))
    return w.transposed ? "fewer than 16 pixels" : "fewer than 128 pixels";
  return nullptr;
}

Kernel make_strassen_kernel(const WindowProblem& w, int threads) {
  StrassenPlan plan;
  const Shape& few = w.transposed ? w.input : w.output;
  const Shape& many = w.transposed ? w.output : w.input;
  plan.images = few[0], plan.rows = few[1], plan.columns = few[2];
  const PixelGrid dense = {plan.pixels(), plan.columns, 1};
  const PixelGrid strided = {many[1] * many[2], w.stride[0] * many[2], w.stride[1]};
  plan.in = w.transposed ? dense : strided;
  plan.out = w.transposed ? strided : dense;
  plan.zero_fill = w.transposed && (few[1] != many[1] || few[2] != many[2]);
  plan.in_channels = w.input[3], plan.out_channels = w.output[3];
  plan.transposed = w.transposed;
  plan.threads = std::max(threads, 1);
  plan.levels = two_levels_pay(w, plan.pixels()) ? 2 : 1;
  plan.blocks = plan.out_part() / kOutputBlock;
  // An odd number of cache lines, so that pairs do not all fall into the same sets.
  plan.pitch = (ceil_div(plan.part(), kLine) | 1) * kLine;
  plan.extra = ExtraInputs(w);
  plan.activation = w.epilogue.activation;
  plan.tile_activation = tile_activation(plan.activation);
  plan.slope = static_cast<float>(w.epilogue.slope);
  choose_chunks(plan);

  Kernel kernel;
  kernel.run = run_strassen;
  kernel.scratch_bytes = StrassenScratch(plan, plan.threads).bytes(plan.threads);
  plan.measure = {w.measure, plan.chunks, plan.out_channels, 0};
  plan.measure.reserve(kernel);
  kernel.packed.input = 1;
  kernel.packed.bytes = static_cast<std::size_t>(plan.packed_floats()) * sizeof(float);
  kernel.packed.pack = pack_weights;
  kernel.packed.format =
      w.transposed ? "conv2d_grad_input.strassen.avx512" : "conv2d.strassen.avx512";
  kernel.in_place = {plan.extra.in_place()};
  kernel.strided_inputs = 1;
  // Pixels between are cleared in one go.
  kernel.strided_outputs = plan.extra.free_output() && !plan.zero_fill;
  kernel.absorb = absorb_norm;
  append_to_plan(kernel.plan, &plan, 1);
  return kernel;
}

}  // namespace pycnn::cpu

#endif
