#include "backends/cpu/normalize_image.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// (x * scale - mean) / std as x * a + b, a = scale / std and b = -mean / std from float64. Against
// the exact value this costs at most three roundings, of x * a, of b and of the sum, each relative
// to |x * scale / std| + |mean / std|.
namespace pycnn::cpu {
namespace {

// The coefficients of the channels, repeated to long rows.
constexpr std::int64_t kPattern = 512;

double value_of(const std::vector<double>& list, std::int64_t channel, double missing) noexcept {
  if (list.empty()) return missing;
  return list[list.size() == 1 ? 0 : static_cast<std::size_t>(channel)];
}

std::int64_t channels_of(const TensorSpec& spec) noexcept {
  return spec.shape.empty() ? 1 : spec.shape.back();
}

template <class In, class Out>
void convert(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::NormalizeImage>(args);
  const std::int64_t channels = channels_of(*args.outputs[0].spec);
  const auto* input = args.inputs[0].as<const In>();
  auto* output = args.outputs[0].as<Out>();
  parallel_ranges(
      args.threads, count_of(args.outputs[0]), kElementGrain,
      [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t c = i % channels;
          const double x = static_cast<double>(input[i]) * op.scale;
          output[i] = static_cast<Out>((x - value_of(op.mean, c, 0.0)) / value_of(op.std, c, 1.0));
        }
      });
}

void reference(const KernelArgs& args) noexcept {
  with_float(args.outputs[0].spec->dtype, [&](auto type) {
    using Out = decltype(type);
    switch (args.inputs[0].spec->dtype) {
      case DType::kUInt8:
        return convert<std::uint8_t, Out>(args);
      case DType::kFloat64:
        return convert<double, Out>(args);
      default:
        return convert<float, Out>(args);
    }
  });
}

// The plan: `period` scales, then `period` offsets, a whole number of pixels.
std::int64_t period_of(std::int64_t channels) noexcept {
  return channels == 0 ? 0 : std::max<std::int64_t>(1, kPattern / channels) * channels;
}

std::vector<std::byte> make_plan(const ops::NormalizeImage& op, std::int64_t channels) {
  const std::int64_t period = period_of(channels);
  std::vector<float> table(static_cast<std::size_t>(2 * period));
  for (std::int64_t i = 0; i < period; ++i) {
    const double std = value_of(op.std, i % channels, 1.0);
    table[static_cast<std::size_t>(i)] = static_cast<float>(op.scale / std);
    table[static_cast<std::size_t>(period + i)] =
        static_cast<float>(-value_of(op.mean, i % channels, 0.0) / std);
  }
  std::vector<std::byte> bytes(table.size() * sizeof(float));
  if (!bytes.empty()) std::memcpy(bytes.data(), table.data(), bytes.size());
  return bytes;
}

template <const NormalizeImageFunctions& Functions>
void run_vector(const KernelArgs& args) noexcept {
  const std::int64_t period = period_of(channels_of(*args.outputs[0].spec));
  if (period == 0) return;
  const auto* scale = reinterpret_cast<const float*>(args.plan);
  const float* offset = scale + period;
  const TensorView& input = args.inputs[0];
  const bool bytes = input.spec->dtype == DType::kUInt8;
  auto* output = args.outputs[0].as<float>();
  const std::int64_t grain = row_grain(period) * period;
  parallel_ranges(
      args.threads, count_of(args.outputs[0]), grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t at = begin; at < end; at += period) {
          const std::int64_t n = std::min(period, end - at);
          if (bytes)
            Functions.from_u8(input.as<const std::uint8_t>() + at, scale, offset, output + at, n);
          else
            Functions.from_f32(input.as<const float>() + at, scale, offset, output + at, n);
        }
      });
}

const char* accept_vector(const ops::NormalizeImage& op, const Problem& problem) {
  const DType in = problem.inputs[0].dtype;
  if (op.dtype != DType::kFloat32 || (in != DType::kUInt8 && in != DType::kFloat32))
    return "not from u8 or f32 to f32";
  return nullptr;
}

std::uint32_t in_place_of(const Problem& problem) {
  return problem.inputs[0] == problem.outputs[0] ? 0b1 : 0;
}

template <const NormalizeImageFunctions& Functions>
Kernel make_vector(const ops::NormalizeImage& op, const Problem& problem) {
  Kernel kernel;
  kernel.run = run_vector<Functions>;
  kernel.in_place = {in_place_of(problem)};
  kernel.plan = make_plan(op, channels_of(problem.outputs[0]));
  return kernel;
}
Kernel make_reference(const ops::NormalizeImage&, const Problem& problem) {
  Kernel kernel;
  kernel.run = reference;
  kernel.in_place = {in_place_of(problem)};
  return kernel;
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::NormalizeImage, "normalize_image", accept_vector, make_vector,
                      kNormalizeImage, make_reference)

}  // namespace pycnn::cpu
