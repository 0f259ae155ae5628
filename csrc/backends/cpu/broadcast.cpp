#include <cstring>

#include "backends/cpu/broadcast_plan.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// Copies elements of one size, whatever they mean.
template <class Item>
void copy(const KernelArgs& args) noexcept {
  const auto& plan = *reinterpret_cast<const BroadcastPlan*>(args.plan);
  const auto* input = args.inputs[0].as<const Item>();
  auto* output = args.outputs[0].as<Item>();
  const bool varies = plan.inner_stride(0) != 0;
  auto segment = [&](std::int64_t at, const std::int64_t* from, std::int64_t n) {
    if (varies)
      std::memcpy(output + at, input + from[0], static_cast<std::size_t>(n) * sizeof(Item));
    else
      std::fill_n(output + at, n, input[from[0]]);
  };
  parallel_ranges(
      args.threads, plan.count, kElementGrain,
      [&](std::int64_t begin, std::int64_t end) { for_each_segment(plan, begin, end, segment); });
}

Kernel make_copy(const ops::Broadcast&, const Problem& problem) {
  Kernel kernel;
  switch (item_bytes(problem.outputs[0].dtype)) {
    case 1:
      kernel.run = copy<std::uint8_t>;
      break;
    case 2:
      kernel.run = copy<std::uint16_t>;
      break;
    case 4:
      kernel.run = copy<std::uint32_t>;
      break;
    default:
      kernel.run = copy<std::uint64_t>;
      break;
  }
  kernel.plan = to_bytes(plan_broadcast(problem.outputs[0].shape, problem.inputs));
  return kernel;
}

}  // namespace

PYCNN_DEFINE_SINGLE_VARIANT(ops::Broadcast, "broadcast.copy", make_copy)

}  // namespace pycnn::cpu
