#pragma once
#include <functional>

#include "backends/test_conv2d_support.h"
#include "core/half.h"

// Kernels of convolution and dense layers in bfloat16, run on buffers that border forbidden pages
// and compared with the reference on the same numbers.
namespace pycnn::testing {

inline float to_bfloat16(float x) { return float_from_bfloat16(bfloat16_from_float(x)); }

inline Values rounded(Values values) {
  for (float& x : values.data) x = to_bfloat16(x);
  return values;
}

// Images, their gradients and residuals are bfloat16, parameters float32.
template <class OpType>
std::vector<TensorSpec> bfloat16_specs(const OpType& op, const std::vector<Values>& inputs) {
  std::vector<TensorSpec> specs;
  for (const Values& input : inputs) specs.push_back({input.shape, DType::kFloat32});
  specs[0].dtype = DType::kBFloat16;
  if constexpr (requires { op.bias; }) specs[1].dtype = DType::kBFloat16;
  if constexpr (requires { op.epilogue; })
    if (op.epilogue.residual) specs.back().dtype = DType::kBFloat16;
  if constexpr (std::is_same_v<OpType, ops::Conv2dGradInput>) {
    // Of the batch norm that sums are for, the input alone is an image.
    const std::size_t images = specs.size() - (op.sums.wanted ? 3 : 0);
    for (std::size_t i = 2; i < images; ++i) specs[i].dtype = DType::kBFloat16;
  }
  return specs;
}

// A tensor as a kernel sees it; its pixels `pitch` elements apart, or, with 0, side by side.
class BoundTensor {
 public:
  BoundTensor(const TensorSpec& spec, const std::vector<float>& values, Guard guard,
              std::int64_t pitch = 0)
      : spec_(spec), pitch_(pitch), buffer_(layout_of(view_of(nullptr)).span(), guard) {
    if (values.empty()) return;
    if (spec.dtype == DType::kBFloat16) {
      std::vector<std::uint16_t> bits;
      for (const float x : values) bits.push_back(bfloat16_from_float(x));
      spread(bits.data());
    } else {
      spread(values.data());
    }
  }
  TensorView view() const { return view_of(buffer_.data()); }
  GuardedBuffer& buffer() { return buffer_; }
  bool gaps_are_intact() const { return layout_of(view()).gaps_are_intact(buffer_.data()); }

  std::vector<float> read() const {
    std::vector<std::byte> packed(byte_size(spec_));
    layout_of(view()).gather(buffer_.data(), packed.data());
    std::vector<float> values(count_of(spec_.shape));
    if (spec_.dtype == DType::kBFloat16) {
      const auto* bits = reinterpret_cast<const std::uint16_t*>(packed.data());
      std::transform(bits, bits + values.size(), values.begin(), float_from_bfloat16);
    } else if (!values.empty()) {
      std::memcpy(values.data(), packed.data(), packed.size());
    }
    return values;
  }

 private:
  TensorView view_of(std::byte* data) const { return {data, &spec_, pitch_}; }
  void spread(const void* values) {
    layout_of(view()).spread(static_cast<const std::byte*>(values), buffer_.data());
  }

  TensorSpec spec_;
  std::int64_t pitch_;
  GuardedBuffer buffer_;
};

template <class OpType>
Kernel bfloat16_kernel(const OpType& op, const std::vector<TensorSpec>& specs,
                       const std::vector<TensorSpec>& outputs, const RunOptions& options) {
  return cpu::select(op, {specs, outputs, best_isa(), options.threads, options.variant}).kernel;
}

// Results of an op, one vector per output.
template <class OpType>
std::vector<std::vector<float>> run_bfloat16(const OpType& op, const std::vector<Values>& inputs,
                                             const RunOptions& options) {
  const std::vector<TensorSpec> specs = bfloat16_specs(op, inputs);
  const std::vector<TensorSpec> outputs = op.infer(specs);
  const Kernel kernel = bfloat16_kernel(op, specs, outputs, options);
  std::vector<BoundTensor> bound, results;
  std::vector<TensorView> input_views, output_views;
  bound.reserve(inputs.size());
  results.reserve(outputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    bound.emplace_back(specs[i], inputs[i].data, options.guard,
                       pitch_of(options, specs[i], kernel.strided_inputs, i));
    input_views.push_back(bound.back().view());
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    results.emplace_back(outputs[i], std::vector<float>(), options.guard,
                         pitch_of(options, outputs[i], kernel.strided_outputs, i));
    output_views.push_back(results.back().view());
  }
  const std::size_t place = inputs.size() - 1 - options.earlier;
  if (options.in_place) {
    REQUIRE((kernel.in_place.at(0) >> place & 1u) != 0);
    output_views[0].data = input_views[place].data;
  } else {
    for (BoundTensor& tensor : bound) tensor.buffer().make_read_only();
  }
  GuardedBuffer plan(aligned(kernel.plan.size()), options.guard);
  std::copy(kernel.plan.begin(), kernel.plan.end(), plan.data());
  plan.make_read_only();
  GuardedBuffer packed(aligned(kernel.packed.bytes), options.guard);
  const Op any = op;
  KernelArgs args;
  args.op = &any;
  args.plan = plan.data();
  args.threads = options.threads;
  if (options.unpacked) {
    REQUIRE((kernel.packed.run_unpacked != nullptr));
  } else if (kernel.packed.input >= 0) {
    const TensorSpec spec{{static_cast<std::int64_t>(kernel.packed.bytes)}, DType::kUInt8};
    const TensorView to{packed.data(), &spec};
    TensorView& original = input_views[static_cast<std::size_t>(kernel.packed.input)];
    GuardedBuffer scratch(aligned(kernel.packed.pack_scratch_bytes), options.guard);
    args.inputs = {&original, 1};
    args.outputs = {&to, 1};
    args.scratch = scratch.data();
    kernel.packed.pack(args);
    original.data = packed.data();
    packed.make_read_only();
  }
  GuardedBuffer scratch(
      aligned(options.unpacked ? kernel.packed.unpacked_scratch_bytes : kernel.scratch_bytes),
      options.guard);
  args.inputs = input_views;
  args.outputs = output_views;
  args.scratch = scratch.data();
  (options.unpacked ? kernel.packed.run_unpacked : kernel.run)(args);
  note_reached(kernel.variant);

  std::vector<std::vector<float>> values;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    CHECK(results[i].buffer().border_is_intact());
    CHECK(results[i].gaps_are_intact());
    values.push_back(options.in_place ? bound[place].read() : results[i].read());
  }
  CHECK(scratch.border_is_intact());
  CHECK(packed.border_is_intact());
  return values;
}

// The variants for bfloat16 that this machine can run and that accept the problem, of those that
// this executable looks at. The portable one always does.
template <class OpType>
std::vector<std::string> bfloat16_variants(const OpType& op, const std::vector<Values>& inputs) {
  const std::vector<TensorSpec> specs = bfloat16_specs(op, inputs);
  std::vector<std::string> names;
  bool is_any = false;
  for (const std::string& name : cpu::variants(op)) {
    if (name.find(".bfloat16.") == std::string::npos) continue;
    try {
      bfloat16_kernel(op, specs, op.infer(specs), {.variant = name});
      is_any = true;
      if (name.ends_with(variants_looked_at())) names.push_back(name);
    } catch (const UnsupportedError&) {
    }
  }
  CHECK(is_any);
  return names;
}

using Verify =
    std::function<void(const std::string& variant, const std::vector<std::vector<float>>&)>;

template <class OpType>
bool reads_unpacked(const OpType& op, const std::vector<Values>& inputs,
                    const std::string& variant) {
  const std::vector<TensorSpec> specs = bfloat16_specs(op, inputs);
  return bfloat16_kernel(op, specs, op.infer(specs), {.variant = variant}).packed.run_unpacked !=
         nullptr;
}

// Hands every variant's results to `verify`, once they were the same bits for 1, 2 and 3 threads,
// with forbidden pages on either side, on pixels that lie apart, and from the weight as it is.
template <class OpType>
void each_bfloat16_run(const OpType& op, const std::vector<Values>& inputs, const Verify& verify) {
  for (const std::string& variant : bfloat16_variants(op, inputs)) {
    CAPTURE(variant);
    const auto first = run_bfloat16(op, inputs, {.variant = variant});
    verify(variant, first);
    for (const int threads : {1, 2, 3}) {
      const Guard guard = threads == 2 ? Guard::kAfter : Guard::kBefore;
      RunOptions options{
          .variant = variant, .threads = threads, .guard = guard, .apart = threads > 1};
      for (const bool unpacked : {false, true}) {
        if (unpacked && !reads_unpacked(op, inputs, variant)) continue;
        options.unpacked = unpacked;
        const auto other = run_bfloat16(op, inputs, options);
        for (std::size_t i = 0; i < first.size(); ++i) CHECK(same_bits(other[i], first[i]));
      }
    }
  }
}

// The reference's results on whole numbers, rounded where the kernel's are bfloat16.
template <class OpType>
void check_exact_bfloat16(const OpType& op, const std::vector<Values>& inputs) {
  const auto expected = run<float>(op, inputs, {.variant = "reference"});
  const std::vector<TensorSpec> outputs = op.infer(bfloat16_specs(op, inputs));
  each_bfloat16_run(op, inputs, [&](const std::string&, const auto& found) {
    for (std::size_t i = 0; i < found.size(); ++i) {
      const bool narrow = outputs[i].dtype == DType::kBFloat16;
      REQUIRE(found[i].size() == expected[i].size());
      std::size_t wrong = 0;
      for (std::size_t j = 0; j < found[i].size(); ++j)
        wrong += found[i][j] != (narrow ? to_bfloat16(expected[i][j]) : expected[i][j]);
      CHECK(wrong == 0);
    }
  });
}

// |y - y64| within the bound of a float32 sum of the rounded inputs, and one rounding of the result
// where it is bfloat16: 2^-8 |y64|. The op must be linear in its inputs. Winograd's kernels round
// in between: tests/ops/test_winograd_bfloat16.py has their bound.
template <class OpType>
void check_condition_bfloat16(const OpType& op, const std::vector<Values>& inputs, double terms) {
  std::vector<Values> given = inputs, magnitudes;
  // A bias is not rounded.
  for (std::size_t i = 0; i < 2; ++i) given[i] = rounded(inputs[i]);
  for (const Values& input : given) magnitudes.push_back(absolute(input));
  const auto exact = run<double>(op, given, {.variant = "reference"});
  const auto scale = run<double>(op, magnitudes, {.variant = "reference"});
  const double factor = (4 + 2 * std::sqrt(terms)) * 0x1p-24;
  const std::vector<TensorSpec> outputs = op.infer(bfloat16_specs(op, inputs));
  each_bfloat16_run(op, inputs, [&](const std::string& variant, const auto& found) {
    if (variant.find(".winograd.") != std::string::npos) return;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double rounding = outputs[i].dtype == DType::kBFloat16 ? 0x1p-8 : 0.0;
      double worst = 0;
      for (std::size_t j = 0; j < found[i].size(); ++j) {
        const double sum = factor * scale[i][j];
        const double error = std::abs(static_cast<double>(found[i][j]) - exact[i][j]);
        worst = std::max(worst, error - sum - rounding * (std::abs(exact[i][j]) + sum));
        if (std::isnan(error)) worst = INFINITY;
      }
      CHECK(worst <= 0.0);
    }
  });
}

}  // namespace pycnn::testing
