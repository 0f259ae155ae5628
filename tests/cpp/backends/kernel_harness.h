#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "backends/cpu/select.h"
#include "core/cpu_features.h"
#include "core/half.h"
#include "core/rng.h"
#include "guarded_buffer.h"
#include "pycnn/error.h"
#include "support/reached_variants.h"

// Runs a kernel in every way in which it must give the same bits: each variant that this machine
// has, 1 to 3 threads, buffers that end at and start after a forbidden page, results on top of
// inputs and pixels apart from one another where the kernel says so.
namespace pycnn::testing {

struct HostTensor {
  TensorSpec spec;
  std::vector<std::byte> bytes;

  HostTensor() = default;
  explicit HostTensor(TensorSpec s) : spec(std::move(s)), bytes(byte_size(spec)) {}
  HostTensor(Shape shape, const std::vector<double>& values, DType dtype = DType::kFloat32)
      : HostTensor(TensorSpec{std::move(shape), dtype}) {
    REQUIRE(values.size() == size());
    for (std::size_t i = 0; i < size(); ++i) set(i, values[i]);
  }

  std::size_t size() const { return bytes.size() / item_bytes(spec.dtype); }
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(bytes.data());
  }
  double operator[](std::size_t i) const {
    switch (spec.dtype) {
      case DType::kFloat32:
        return as<float>()[i];
      case DType::kFloat64:
        return as<double>()[i];
      case DType::kUInt8:
        return as<std::uint8_t>()[i];
      case DType::kInt32:
        return as<std::int32_t>()[i];
      case DType::kInt64:
        return static_cast<double>(as<std::int64_t>()[i]);
      case DType::kBFloat16:
        return float_from_bfloat16(as<std::uint16_t>()[i]);
      case DType::kFloat16:
        return float_from_float16(as<std::uint16_t>()[i]);
    }
    return 0.0;
  }
  void set(std::size_t i, double value) {
    switch (spec.dtype) {
      case DType::kFloat32:
        as<float>()[i] = static_cast<float>(value);
        break;
      case DType::kFloat64:
        as<double>()[i] = value;
        break;
      case DType::kUInt8:
        as<std::uint8_t>()[i] = static_cast<std::uint8_t>(value);
        break;
      case DType::kInt32:
        as<std::int32_t>()[i] = static_cast<std::int32_t>(value);
        break;
      case DType::kInt64:
        as<std::int64_t>()[i] = static_cast<std::int64_t>(value);
        break;
      case DType::kBFloat16:
        as<std::uint16_t>()[i] = bfloat16_from_float(static_cast<float>(value));
        break;
      case DType::kFloat16:
        as<std::uint16_t>()[i] = float16_from_float(static_cast<float>(value));
        break;
    }
  }
};

// Uniform in [low, high), the same on every machine.
inline HostTensor random_tensor(Shape shape, std::uint64_t seed, double low = -2.0,
                                double high = 2.0, DType dtype = DType::kFloat32) {
  HostTensor tensor(TensorSpec{std::move(shape), dtype});
  const Philox philox(seed);
  for (std::size_t i = 0; i < tensor.size(); ++i)
    tensor.set(i, low + (high - low) * static_cast<double>(unit_float(philox(i, 0)[0])));
  return tensor;
}
// Whole numbers in [-limit, limit].
inline HostTensor random_integers(Shape shape, std::uint64_t seed, int limit,
                                  DType dtype = DType::kFloat32) {
  HostTensor tensor(TensorSpec{std::move(shape), dtype});
  const Philox philox(seed);
  for (std::size_t i = 0; i < tensor.size(); ++i)
    tensor.set(i,
               static_cast<double>(philox(i, 0)[0] % static_cast<unsigned>(2 * limit + 1)) - limit);
  return tensor;
}
inline HostTensor to_float64(const HostTensor& tensor) {
  if (!is_floating(tensor.spec.dtype)) return tensor;
  HostTensor result(TensorSpec{tensor.spec.shape, DType::kFloat64});
  for (std::size_t i = 0; i < tensor.size(); ++i) result.set(i, tensor[i]);
  return result;
}

struct KernelRun {
  std::string variant;  // empty: the best
  int threads = 1;
  Guard guard = Guard::kAfter;
  int alias_output = -1;  // this output lies on ...
  int alias_input = -1;   // ... this input
  // Bit i: the pixels of input (output) i lie apart.
  std::uint32_t apart_inputs = 0;
  std::uint32_t apart_outputs = 0;
};

// The pixels of a tensor, with 3 more elements between them if `apart`.
inline PixelLayout layout_of(const TensorSpec& spec, bool apart) {
  const std::size_t bytes = byte_size(spec);
  if (!apart || spec.shape.empty() || bytes == 0) return {1, bytes, bytes};
  const std::size_t pixel = static_cast<std::size_t>(spec.shape.back()) * item_bytes(spec.dtype);
  return {bytes / pixel, pixel, pixel + 3 * item_bytes(spec.dtype)};
}
inline std::int64_t pixel_pitch_of(const TensorSpec& spec, bool apart) {
  return apart && !spec.shape.empty() ? spec.shape.back() + 3 : 0;
}

// The selected kernel of a problem; throws what select throws.
template <class OpType>
Selection select_kernel(const OpType& op, Specs inputs, Specs outputs, const KernelRun& run) {
  Problem problem;
  problem.inputs = inputs;
  problem.outputs = outputs;
  problem.isa = best_isa();
  problem.threads = run.threads;
  problem.pinned = run.variant;
  return cpu::select(op, problem);
}

inline std::vector<TensorSpec> specs_of(const std::vector<HostTensor>& tensors) {
  std::vector<TensorSpec> specs;
  for (const HostTensor& tensor : tensors) specs.push_back(tensor.spec);
  return specs;
}

template <class OpType>
std::vector<HostTensor> run_kernel(const OpType& op, const std::vector<HostTensor>& inputs,
                                   const KernelRun& run = {}, Kernel* chosen = nullptr) {
  const std::vector<TensorSpec> input_specs = specs_of(inputs);
  const std::vector<TensorSpec> output_specs = op.infer(input_specs);
  const Kernel kernel = select_kernel(op, input_specs, output_specs, run).kernel;
  if (chosen != nullptr) *chosen = kernel;

  const auto bit = [](std::uint32_t bits, std::size_t i) { return i < 32 && (bits >> i & 1u); };
  std::vector<GuardedBuffer> buffers;
  std::vector<TensorView> in, out;
  buffers.reserve(inputs.size() + output_specs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool apart = bit(run.apart_inputs, i);
    const PixelLayout layout = layout_of(input_specs[i], apart);
    buffers.emplace_back(layout.span(), run.guard);
    layout.spread(inputs[i].bytes.data(), buffers.back().data());
    if (static_cast<int>(i) != run.alias_input) buffers.back().make_read_only();
    in.push_back({buffers.back().data(), &input_specs[i], pixel_pitch_of(input_specs[i], apart)});
  }
  for (std::size_t i = 0; i < output_specs.size(); ++i) {
    if (static_cast<int>(i) == run.alias_output) {
      out.push_back({in[static_cast<std::size_t>(run.alias_input)].data, &output_specs[i]});
      continue;
    }
    const bool apart = bit(run.apart_outputs, i);
    buffers.emplace_back(layout_of(output_specs[i], apart).span(), run.guard);
    out.push_back(
        {buffers.back().data(), &output_specs[i], pixel_pitch_of(output_specs[i], apart)});
  }
  GuardedBuffer scratch((kernel.scratch_bytes + 63) / 64 * 64, run.guard);
  GuardedBuffer plan((kernel.plan.size() + 63) / 64 * 64, run.guard);
  if (!kernel.plan.empty()) std::memcpy(plan.data(), kernel.plan.data(), kernel.plan.size());
  plan.make_read_only();

  const Op any = op;
  KernelArgs args;
  args.op = &any;
  args.inputs = in;
  args.outputs = out;
  args.scratch = scratch.data();
  args.threads = run.threads;
  args.plan = plan.data();
  kernel.run(args);
  note_reached(kernel.variant);

  for (const GuardedBuffer& buffer : buffers) CHECK(buffer.border_is_intact());
  CHECK(scratch.border_is_intact());
  std::vector<HostTensor> results;
  for (std::size_t i = 0; i < output_specs.size(); ++i) {
    results.emplace_back(output_specs[i]);
    if (results.back().bytes.empty()) continue;
    const PixelLayout layout = layout_of(output_specs[i], bit(run.apart_outputs, i));
    CHECK(layout.gaps_are_intact(static_cast<const std::byte*>(out[i].data)));
    layout.gather(static_cast<const std::byte*>(out[i].data), results.back().bytes.data());
  }
  return results;
}

inline bool same_bits(const std::vector<HostTensor>& a, const std::vector<HostTensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const HostTensor& x, const HostTensor& y) {
                      return x.spec == y.spec && x.bytes == y.bytes;
                    });
}

// One by one and all together, the pixels of what may lie apart do.
template <class OpType>
void check_apart(const OpType& op, const std::vector<HostTensor>& inputs, KernelRun run,
                 const Kernel& kernel, const std::vector<HostTensor>& expected) {
  const auto check = [&](std::uint32_t in, std::uint32_t out) {
    if (in == 0 && out == 0) return;
    CAPTURE(in);
    CAPTURE(out);
    run.apart_inputs = in, run.apart_outputs = out;
    for (const Guard guard : {Guard::kAfter, Guard::kBefore})
      for (const int threads : {1, 3}) {
        run.guard = guard, run.threads = threads;
        CHECK(same_bits(run_kernel(op, inputs, run), expected));
      }
  };
  const auto has = [](std::uint32_t bits, std::uint32_t i) { return bits & 1u << i; };
  for (std::uint32_t i = 0; i < std::min<std::size_t>(inputs.size(), 32); ++i)
    check(has(kernel.strided_inputs, i), 0);
  for (std::uint32_t o = 0; o < std::min<std::size_t>(expected.size(), 32); ++o)
    check(0, has(kernel.strided_outputs, o));
  check(kernel.strided_inputs, kernel.strided_outputs);
}

// Runs everything there is for one problem and hands each variant's results to `verify`.
template <class OpType>
void check_kernels(const OpType& op, const std::vector<HostTensor>& inputs,
                   const std::function<void(const std::vector<HostTensor>&)>& verify) {
  int ran = 0;
  for (const std::string& variant : cpu::variants(op)) {
    CAPTURE(variant);
    CAPTURE(to_string(inputs.empty() ? Shape{} : inputs[0].spec.shape));
    KernelRun run;
    run.variant = variant;
    Kernel kernel;
    std::vector<HostTensor> first;
    try {
      first = run_kernel(op, inputs, run, &kernel);
    } catch (const UnsupportedError&) {
      continue;
    }
    ++ran;
    verify(first);
    for (const int threads : {1, 2, 3})
      for (const Guard guard : {Guard::kAfter, Guard::kBefore}) {
        run.threads = threads;
        run.guard = guard;
        CHECK(same_bits(run_kernel(op, inputs, run), first));
      }
    for (std::size_t o = 0; o < kernel.in_place.size(); ++o)
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        if ((kernel.in_place[o] >> i & 1u) == 0) continue;
        CAPTURE(o);
        CAPTURE(i);
        run.alias_output = static_cast<int>(o);
        run.alias_input = static_cast<int>(i);
        CHECK(same_bits(run_kernel(op, inputs, run), first));
        run.alias_output = run.alias_input = -1;
      }
    check_apart(op, inputs, run, kernel, first);
  }
  CHECK(ran > 0);
}

// Relative to one rounding of the element type: |actual - expected| <= units * u * magnitude, with
// denormal results within one step. NaN wants NaN, an infinity itself.
inline bool is_close(const HostTensor& actual, std::size_t i, double expected, double magnitude,
                     double units) {
  const double value = actual[i];
  if (std::isnan(expected)) return std::isnan(value);
  if (std::isinf(expected)) return value == expected;
  const bool wide = actual.spec.dtype == DType::kFloat64;
  const double u = wide ? 0x1p-50 : 0x1p-24;  // the expectation is only a double itself
  const double least = wide ? 0.0 : 0x1p-149;
  return std::abs(value - expected) <= units * u * magnitude + least;
}

// Element-wise ops: 12 roundings of the magnitude that cancels inside.
constexpr double kElementwiseUnits = 12.0;
// Sums of n terms: the condition mode.
inline double sum_units(double n) { return 4.0 + 2.0 * std::sqrt(n); }

const std::vector<std::int64_t> kOddSizes = {0, 1, 2, 3, 15, 16, 17, 31, 33, 1000, 2049, 20001};
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace pycnn::testing
