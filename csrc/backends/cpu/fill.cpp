#include <algorithm>

#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/half.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

template <class Item>
void fill_with(const KernelArgs& args, Item value) noexcept {
  auto* output = args.outputs[0].as<Item>();
  parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                  [=](std::int64_t begin, std::int64_t end) {
                    std::fill(output + begin, output + end, value);
                  });
}

void run(const KernelArgs& args) noexcept {
  const double value = op_of<ops::Fill>(args).value;
  switch (args.outputs[0].spec->dtype) {
    case DType::kFloat32:
      return fill_with(args, static_cast<float>(value));
    case DType::kFloat64:
      return fill_with(args, value);
    case DType::kBFloat16:
      return fill_with(args, bfloat16_from_float(static_cast<float>(value)));
    case DType::kFloat16:
      return fill_with(args, float16_from_float(static_cast<float>(value)));
    case DType::kUInt8:
      return fill_with(args, static_cast<std::uint8_t>(value));
    case DType::kInt32:
      return fill_with(args, static_cast<std::int32_t>(value));
    case DType::kInt64:
      return fill_with(args, static_cast<std::int64_t>(value));
  }
}

Kernel make(const ops::Fill&, const Problem&) {
  Kernel kernel;
  kernel.run = run;
  return kernel;
}

}  // namespace

PYCNN_DEFINE_SINGLE_VARIANT(ops::Fill, "fill.store", make)

}  // namespace pycnn::cpu
