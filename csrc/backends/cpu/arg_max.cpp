#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// NaN ranks before any number, the first NaN before others.
template <class T>
std::int64_t place_of_largest(const T* x, std::int64_t n, std::int64_t stride, bool last) noexcept {
  std::int64_t best = 0;
  T largest = x[0];
  for (std::int64_t i = 1; i < n; ++i) {
    const T value = x[i * stride];
    const bool wins = largest != largest
                          ? last && value != value
                          : value > largest || value != value || (last && value == largest);
    if (!wins) continue;
    best = i;
    largest = value;
  }
  return best;
}

void scan_axis(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::ArgMax>(args);
  const Shape& shape = args.inputs[0].spec->shape;
  const auto rank = static_cast<std::int64_t>(shape.size());
  const auto axis = static_cast<std::size_t>(op.axis < 0 ? op.axis + rank : op.axis);
  std::int64_t inner = 1;
  for (std::size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  const std::int64_t n = shape[axis];
  auto* output = args.outputs[0].as<std::int64_t>();
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    parallel_ranges(args.threads, count_of(args.outputs[0]), row_grain(n),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; ++i)
                        output[i] = place_of_largest(input + i / inner * n * inner + i % inner, n,
                                                     inner, op.last);
                    });
  });
}

}  // namespace

PYCNN_DEFINE_SINGLE_VARIANT(ops::ArgMax, "arg_max.scan", (plain_kernel<scan_axis>))

}  // namespace pycnn::cpu
