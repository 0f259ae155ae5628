#include "backends/cpu/select.h"
#include "backends/cpu/slice_runs.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// Element by element: the input's index from the output's.
void slice_reference(const KernelArgs& args) noexcept {
  const auto& begin = op_of<ops::Slice>(args).begin;
  const Shape &in = args.inputs[0].spec->shape, &out = args.outputs[0].spec->shape;
  const std::size_t item = item_bytes(args.inputs[0].spec->dtype);
  for (std::int64_t i = 0, n = count_of(args.outputs[0]); i < n; ++i) {
    std::int64_t rest = i, source = 0, step = 1;
    for (std::size_t a = out.size(); a-- > 0;) {
      source += (rest % out[a] + begin[a]) * step;
      rest /= out[a];
      step *= in[a];
    }
    std::memcpy(args.outputs[0].as<std::byte>() + static_cast<std::size_t>(i) * item,
                args.inputs[0].as<const std::byte>() + static_cast<std::size_t>(source) * item,
                item);
  }
}

struct Plan {
  RunAxes outer;
  std::int64_t run_bytes = 0;
  std::int64_t first = 0;  // offset of the box in the input, bytes
};

// Axes that are taken whole join the axis before them, so that runs are long.
Plan plan_slice(const ops::Slice& op, const Problem& problem) {
  const Shape &in = problem.inputs[0].shape, &out = problem.outputs[0].shape;
  Plan plan;
  auto step = static_cast<std::int64_t>(item_bytes(problem.inputs[0].dtype));
  plan.run_bytes = step;
  std::size_t a = in.size();
  while (a > 0) {
    const bool whole = out[a - 1] == in[a - 1];
    --a;
    plan.run_bytes *= out[a];
    plan.first += op.begin[a] * step;
    step *= in[a];
    if (!whole) break;
  }
  // The axes before, outermost first; whole ones could be joined too, but it would save little.
  plan.outer.rank = static_cast<int>(a);
  while (a > 0) {
    --a;
    plan.outer.size[a] = plan.outer.inside[a] = out[a];
    plan.outer.input_step[a] = step;
    plan.first += op.begin[a] * step;
    step *= in[a];
  }
  return plan;
}

// From pixels that lie apart, one by one.
void slice_pixels(const KernelArgs& args) noexcept {
  const auto& begin = op_of<ops::Slice>(args).begin;
  const Shape &in = args.inputs[0].spec->shape, &out = args.outputs[0].spec->shape;
  const auto item = static_cast<std::int64_t>(item_bytes(args.inputs[0].spec->dtype));
  const std::int64_t bytes = out.back() * item;
  if (bytes == 0) return;
  RunAxes outer;
  outer.rank = static_cast<int>(out.size()) - 1;
  std::int64_t step = args.inputs[0].pitch() * item, first = begin.back() * item;
  for (std::size_t a = out.size() - 1; a-- > 0; step *= in[a]) {
    outer.size[a] = outer.inside[a] = out[a];
    outer.input_step[a] = step;
    first += begin[a] * step;
  }
  const auto* const input = args.inputs[0].as<const std::byte>() + first;
  auto* const output = args.outputs[0].as<std::byte>();
  auto body = [&](std::int64_t from, std::int64_t to) {
    RunCursor cursor(outer, from);
    for (std::int64_t r = from; r < to; ++r, cursor.next())
      std::memcpy(output + r * bytes, input + cursor.input_offset(),
                  static_cast<std::size_t>(bytes));
  };
  parallel_ranges(args.threads, outer.count(), run_grain(bytes), body);
}

void slice_copy(const KernelArgs& args) noexcept {
  if (args.inputs[0].pixel_pitch != 0) return slice_pixels(args);
  const auto& plan = *reinterpret_cast<const Plan*>(args.plan);
  const auto* const input = args.inputs[0].as<const std::byte>() + plan.first;
  auto* const output = args.outputs[0].as<std::byte>();
  if (plan.run_bytes == 0) return;
  auto body = [&](std::int64_t begin, std::int64_t end) {
    RunCursor cursor(plan.outer, begin);
    for (std::int64_t r = begin; r < end; ++r, cursor.next())
      std::memcpy(output + r * plan.run_bytes, input + cursor.input_offset(),
                  static_cast<std::size_t>(plan.run_bytes));
  };
  parallel_ranges(args.threads, plan.outer.count(), run_grain(plan.run_bytes), body);
}

const char* accept_rank(const ops::Slice&, const Problem& problem) {
  return problem.inputs[0].shape.size() > kMaxRunAxes + 1 ? "more than 9 axes" : nullptr;
}

Kernel make_slice(const ops::Slice& op, const Problem& problem) {
  Kernel kernel = plain_kernel<slice_copy>(op, problem);
  kernel.plan = plan_bytes(plan_slice(op, problem));
  kernel.strided_inputs = 1;
  return kernel;
}

}  // namespace

template <>
struct VariantList<ops::Slice> {
  static constexpr Variant<ops::Slice> kAll[] = {
      {"slice.copy", Isa::kBaseline, accept_rank, make_slice, Images::kAny},
      {"slice.reference", Isa::kBaseline, accept_all, plain_kernel<slice_reference>, Images::kAny}};
};
PYCNN_DEFINE_SELECT(ops::Slice)

}  // namespace pycnn::cpu
