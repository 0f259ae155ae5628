#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backends/cpu/select.h"
#include "guarded_buffer.h"
#include "pycnn/error.h"
#include "support/reached_variants.h"

// Runs kernels of convolution and dense layers on buffers that border forbidden pages, and compares
// variants with the reference.
namespace pycnn::testing {

// A tensor of float32 values; the float64 reference reads the same values widened.
struct Values {
  Shape shape;
  std::vector<float> data;
};

inline std::size_t count_of(const Shape& shape) {
  return static_cast<std::size_t>(element_count(shape));
}

// Whole numbers in [-range, range]: as long as sums stay below 2^24, every order of summation gives
// the same bits.
inline Values whole_numbers(const Shape& shape, std::mt19937& random, int range = 4) {
  std::uniform_int_distribution<int> draw(-range, range);
  Values values{shape, std::vector<float>(count_of(shape))};
  for (float& x : values.data) x = static_cast<float>(draw(random));
  return values;
}

inline Values reals(const Shape& shape, std::mt19937& random) {
  std::normal_distribution<float> draw;
  Values values{shape, std::vector<float>(count_of(shape))};
  for (float& x : values.data) x = draw(random);
  return values;
}

inline Values absolute(Values values) {
  for (float& x : values.data) x = std::abs(x);
  return values;
}

struct RunOptions {
  std::string_view variant = {};  // a name, "reference", or empty for the best
  Isa isa = Isa::kAvx512;
  int threads = 1;
  Guard guard = Guard::kAfter;
  bool in_place = false;    // the last input's memory receives the output
  std::size_t earlier = 0;  // in_place: that of so many inputs before the last
  std::size_t placed = 0;   // in_place: which output it receives
  bool apart = false;       // pixels lie apart, wherever the kernel can do with that
  bool unpacked = false;    // PackedInput::run_unpacked in place of packing
};

// Winograd's kernels round otherwise than sums do: test_winograd.cpp looks at them.
enum class Winograd : std::uint8_t { kLeftOut, kTaken };

inline std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Elements from pixel to pixel of input or output i, where bit i of what the kernel may is set.
inline std::int64_t pitch_of(const RunOptions& options, const TensorSpec& spec, std::uint32_t may,
                             std::size_t i) {
  return options.apart && (may >> i & 1u) != 0 ? spec.shape.back() + 3 : 0;
}

inline PixelLayout layout_of(const TensorView& view) {
  const std::size_t element = item_bytes(view.spec->dtype), bytes = byte_size(*view.spec);
  const auto pixel = static_cast<std::size_t>(view.spec->shape.back()) * element;
  return {bytes / std::max<std::size_t>(pixel, 1), pixel,
          static_cast<std::size_t>(view.pitch()) * element};
}

template <class T>
std::vector<TensorSpec> specs_of(const std::vector<Values>& values) {
  std::vector<TensorSpec> specs;
  for (const Values& each : values)
    specs.push_back({each.shape, sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32});
  return specs;
}

// What a kernel of an op computes, one vector per output. `T` is the element type that it sees.
template <class T>
std::vector<std::vector<T>> run_selected(const Kernel& kernel, const Op& op,
                                         const std::vector<Values>& inputs,
                                         const std::vector<TensorSpec>& results,
                                         const RunOptions& options) {
  const std::vector<TensorSpec> specs = specs_of<T>(inputs);
  std::vector<GuardedBuffer> buffers, outputs;
  std::vector<TensorView> input_views, output_views;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::vector<T> typed(inputs[i].data.begin(), inputs[i].data.end());
    TensorView view{nullptr, &specs[i], pitch_of(options, specs[i], kernel.strided_inputs, i)};
    buffers.emplace_back(layout_of(view).span(), options.guard);
    view.data = buffers.back().data();
    layout_of(view).spread(reinterpret_cast<const std::byte*>(typed.data()), buffers.back().data());
    input_views.push_back(view);
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    TensorView view{nullptr, &results[i], pitch_of(options, results[i], kernel.strided_outputs, i)};
    outputs.emplace_back(layout_of(view).span(), options.guard);
    view.data = outputs.back().data();
    output_views.push_back(view);
  }
  if (options.in_place) {
    const std::size_t place = inputs.size() - 1 - options.earlier;
    REQUIRE((kernel.in_place.at(options.placed) >> place & 1u) != 0);
    output_views[options.placed].data = input_views[place].data;
  } else {
    for (const GuardedBuffer& buffer : buffers) const_cast<GuardedBuffer&>(buffer).make_read_only();
  }
  GuardedBuffer plan(aligned(kernel.plan.size()), options.guard);
  std::copy(kernel.plan.begin(), kernel.plan.end(), plan.data());
  GuardedBuffer packed(aligned(kernel.packed.bytes), options.guard);
  KernelArgs args;
  args.op = &op;
  args.plan = plan.data();
  args.threads = options.threads;
  if (kernel.packed.input >= 0) {
    const TensorSpec spec{{static_cast<std::int64_t>(kernel.packed.bytes)}, DType::kUInt8};
    TensorView& original = input_views[static_cast<std::size_t>(kernel.packed.input)];
    const TensorView to{packed.data(), &spec};
    GuardedBuffer scratch(aligned(kernel.packed.pack_scratch_bytes), options.guard);
    args.inputs = {&original, 1};
    args.outputs = {&to, 1};
    args.scratch = scratch.data();
    kernel.packed.pack(args);
    original.data = packed.data();
  }
  GuardedBuffer scratch(aligned(kernel.scratch_bytes), options.guard);
  args.inputs = input_views;
  args.outputs = output_views;
  args.scratch = scratch.data();
  kernel.run(args);
  note_reached(kernel.variant);

  std::vector<std::vector<T>> values;
  for (std::size_t i = 0; i < results.size(); ++i) {
    CHECK(outputs[i].border_is_intact());
    const auto* from = static_cast<const std::byte*>(output_views[i].data);
    const PixelLayout layout = layout_of(output_views[i]);
    CHECK(layout.gaps_are_intact(from));
    values.emplace_back(count_of(results[i].shape));
    layout.gather(from, reinterpret_cast<std::byte*>(values.back().data()));
  }
  CHECK(scratch.border_is_intact());
  CHECK(packed.border_is_intact());
  return values;
}

// Results of an op, by the kernel that is chosen for it.
template <class T, class OpType>
std::vector<std::vector<T>> run(const OpType& op, const std::vector<Values>& inputs,
                                const RunOptions& options = {}) {
  const std::vector<TensorSpec> specs = specs_of<T>(inputs), results = op.infer(specs);
  const Problem problem{specs, results, options.isa, options.threads, options.variant};
  return run_selected<T>(cpu::select(op, problem).kernel, op, inputs, results, options);
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// The fast variants that this machine can run and that accept the problem.
template <class OpType>
std::vector<std::string> fast_variants(const OpType& op, const std::vector<Values>& inputs,
                                       Winograd winograd = Winograd::kTaken) {
  const std::vector<TensorSpec> specs = specs_of<float>(inputs), results = op.infer(specs);
  std::vector<std::string> names;
  for (const std::string& name : cpu::variants(op)) {
    if (name.ends_with("reference")) continue;
    try {
      cpu::select(op, {specs, results, best_isa(), 1, name, winograd == Winograd::kTaken});
      names.push_back(name);
    } catch (const UnsupportedError&) {
    }
  }
  return names;
}

// Channels of the widest groups that Winograd's kernels of this machine take: four vectors.
inline std::int64_t widest_winograd_group() {
  switch (best_isa()) {
    case Isa::kAvx512:
      return 4 * 16;
    case Isa::kAvx2:
      return 4 * 8;
    default:
      return 4 * 4;
  }
}

// Every fast variant gives the reference's bits on whole numbers, for 1, 2 and 3 threads, with
// forbidden pages on either side, and on pixels that lie apart with them too. -0 counts as 0.
template <class OpType>
void check_exact(const OpType& op, const std::vector<Values>& inputs,
                 Winograd winograd = Winograd::kLeftOut) {
  auto expected = run<float>(op, inputs, {.variant = "reference"});
  for (const std::string& variant : fast_variants(op, inputs, winograd)) {
    CAPTURE(variant);
    for (const auto& [threads, guard] : {std::pair{1, Guard::kBefore},
                                         {2, Guard::kAfter},
                                         {3, Guard::kAfter},
                                         {3, Guard::kBefore}}) {
      CAPTURE(threads);
      RunOptions options{.variant = variant, .threads = threads, .guard = guard};
      options.apart = threads == 3;
      const auto actual = run<float>(op, inputs, options);
      REQUIRE(actual.size() == expected.size());
      for (std::size_t i = 0; i < actual.size(); ++i) CHECK(actual[i] == expected[i]);
    }
  }
}

// check_exact for the variants of a gradient that have as many partial sums as threads: on whole
// numbers alone they agree, and no list has them.
template <class OpType>
void check_exact_per_thread(const OpType& op, const std::vector<Values>& inputs) {
  const auto expected = run<float>(op, inputs, {.variant = "reference"});
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (isa > best_isa()) continue;
    const std::string variant = std::string(OpType::kName) + ".per_thread." + isa_name(isa);
    CAPTURE(variant);
    for (const int threads : {1, 2, 3, 7})
      for (const Guard guard : {Guard::kBefore, Guard::kAfter}) {
        CAPTURE(threads);
        RunOptions options{.variant = variant, .threads = threads, .guard = guard};
        options.apart = threads == 3;
        const auto actual = run<float>(op, inputs, options);
        REQUIRE(actual.size() == expected.size());
        for (std::size_t i = 0; i < actual.size(); ++i) CHECK(actual[i] == expected[i]);
      }
  }
}

// |y - y64| <= (4 + 2 sqrt(n)) 2^-24 S, with S the op on absolute values and n the terms of a sum;
// and the same bits for any thread count. The op must be linear in its inputs.
template <class OpType>
void check_condition(const OpType& op, const std::vector<Values>& inputs, double terms) {
  std::vector<Values> magnitudes;
  for (const Values& input : inputs) magnitudes.push_back(absolute(input));
  const auto exact = run<double>(op, inputs, {.variant = "reference"});
  const auto scale = run<double>(op, magnitudes, {.variant = "reference"});
  const double factor = (4 + 2 * std::sqrt(terms)) * 0x1p-24;
  for (const std::string& variant : fast_variants(op, inputs, Winograd::kLeftOut)) {
    CAPTURE(variant);
    const auto alone = run<float>(op, inputs, {.variant = variant});
    for (const int threads : {2, 3}) {
      const auto shared = run<float>(op, inputs, {.variant = variant, .threads = threads});
      for (std::size_t i = 0; i < alone.size(); ++i) CHECK(same_bits(shared[i], alone[i]));
    }
    const auto apart = run<float>(op, inputs, {.variant = variant, .apart = true});
    for (std::size_t i = 0; i < alone.size(); ++i) CHECK(same_bits(apart[i], alone[i]));
    for (std::size_t i = 0; i < alone.size(); ++i) {
      double worst = 0;
      for (std::size_t j = 0; j < alone[i].size(); ++j) {
        const double error = std::abs(alone[i][j] - exact[i][j]);
        const double allowed = factor * scale[i][j];
        worst = std::max(worst, std::isfinite(error) && error <= allowed ? 0.0 : error - allowed);
        if (std::isnan(error)) worst = INFINITY;
      }
      CHECK(worst == 0.0);
    }
  }
}

}  // namespace pycnn::testing
