#include <cmath>
#include <cstring>

#include "backends/cpu/convert.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/half.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// The neighbour of `value` whose last bit is 1, unless float holds it exactly: rounding that once
// more to fewer bits gives what rounding `value` itself would.
float odd_float(double value) noexcept {
  float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || !std::isfinite(value)) return nearest;
  if (std::abs(static_cast<double>(nearest)) > std::abs(value))
    nearest = std::nextafter(nearest, 0.0f);
  std::uint32_t bits;
  std::memcpy(&bits, &nearest, sizeof bits);
  bits |= 1u;
  std::memcpy(&nearest, &bits, sizeof bits);
  return nearest;
}

double element(const TensorView& view, std::int64_t i) noexcept {
  switch (view.spec->dtype) {
    case DType::kFloat64:
      return view.as<const double>()[i];
    case DType::kBFloat16:
      return float_from_bfloat16(view.as<const std::uint16_t>()[i]);
    case DType::kFloat16:
      return float_from_float16(view.as<const std::uint16_t>()[i]);
    default:
      return view.as<const float>()[i];
  }
}

void set_element(const TensorView& view, std::int64_t i, double value) noexcept {
  switch (view.spec->dtype) {
    case DType::kFloat64:
      view.as<double>()[i] = value;
      break;
    case DType::kBFloat16:
      view.as<std::uint16_t>()[i] = bfloat16_from_float(odd_float(value));
      break;
    case DType::kFloat16:
      view.as<std::uint16_t>()[i] = float16_from_float(odd_float(value));
      break;
    default:
      view.as<float>()[i] = static_cast<float>(value);
  }
}

void cast_reference(const KernelArgs& args) noexcept {
  parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t i = begin; i < end; ++i)
                      set_element(args.outputs[0], i, element(args.inputs[0], i));
                  });
}

template <const ConvertFunctions& Functions>
void cast_vector(const KernelArgs& args) noexcept {
  const TensorView &input = args.inputs[0], &output = args.outputs[0];
  const bool narrows = output.spec->dtype == DType::kBFloat16;
  parallel_ranges(
      args.threads, count_of(output), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t n = end - begin;
        if (narrows)
          Functions.narrow(input.as<const float>() + begin, output.as<BFloat16>() + begin, n);
        else
          Functions.widen(input.as<const BFloat16>() + begin, output.as<float>() + begin, n);
      });
}

const char* accept_bfloat16(const ops::Cast&, const Problem& problem) {
  const DType from = problem.inputs[0].dtype, to = problem.outputs[0].dtype;
  const bool between = (from == DType::kFloat32 && to == DType::kBFloat16) ||
                       (from == DType::kBFloat16 && to == DType::kFloat32);
  return between ? nullptr : "is for float32 and bfloat16";
}

}  // namespace

template <>
struct VariantList<ops::Cast> {
  static constexpr Variant<ops::Cast> kAll[] = {
      PYCNN_IF_AVX512({"cast.vector.avx512", Isa::kAvx512, accept_bfloat16,
                       plain_kernel<cast_vector<avx512::kConvert>>, Images::kAny}, )  //
      PYCNN_IF_AVX2({"cast.vector.avx2", Isa::kAvx2, accept_bfloat16,
                     plain_kernel<cast_vector<avx2::kConvert>>, Images::kAny}, )  //
      {"cast.vector.baseline", Isa::kBaseline, accept_bfloat16,
       plain_kernel<cast_vector<baseline::kConvert>>, Images::kAny},
      {"cast.reference", Isa::kBaseline, accept_all, plain_kernel<cast_reference>, Images::kAny}};
};
PYCNN_DEFINE_SELECT(ops::Cast)

}  // namespace pycnn::cpu
