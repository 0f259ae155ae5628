#include "backends/cpu/select.h"
#include "backends/cpu/slice_runs.h"
#include "backends/cpu/vector_variants.h"
#include "core/half.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// The value as one element of the tensor's type.
struct Element {
  std::byte bytes[8] = {};
  std::size_t size = 0;
};
template <class T>
Element element_from(T value) noexcept {
  Element e;
  e.size = sizeof value;
  std::memcpy(e.bytes, &value, sizeof value);
  return e;
}
Element element_of(DType dtype, double value) noexcept {
  switch (dtype) {
    case DType::kFloat32:
      return element_from(static_cast<float>(value));
    case DType::kFloat64:
      return element_from(value);
    case DType::kBFloat16:
      return element_from(bfloat16_from_float(static_cast<float>(value)));
    case DType::kFloat16:
      return element_from(float16_from_float(static_cast<float>(value)));
    case DType::kUInt8:
      return element_from(static_cast<std::uint8_t>(value));
    case DType::kInt32:
      return element_from(static_cast<std::int32_t>(value));
    case DType::kInt64:
      return element_from(static_cast<std::int64_t>(value));
  }
  return {};
}

// Element by element: the input's index from the output's, or outside.
void pad_reference(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Pad>(args);
  const Shape &in = args.inputs[0].spec->shape, &out = args.outputs[0].spec->shape;
  const Element value = element_of(args.inputs[0].spec->dtype, op.value);
  auto* output = args.outputs[0].as<std::byte>();
  for (std::int64_t i = 0, n = count_of(args.outputs[0]); i < n; ++i, output += value.size) {
    std::int64_t rest = i, source = 0, step = 1;
    bool inside = true;
    for (std::size_t a = out.size(); a-- > 0;) {
      const std::int64_t position = rest % out[a] - op.before[a];
      inside = inside && position >= 0 && position < in[a];
      source += position * step;
      rest /= out[a];
      step *= in[a];
    }
    const std::byte* const input =
        args.inputs[0].as<const std::byte>() + source * static_cast<std::int64_t>(value.size);
    std::memcpy(output, inside ? input : value.bytes, value.size);
  }
}

struct Plan {
  RunAxes outer;
  // Bytes of one run of the output: before, copied, after.
  std::int64_t before = 0;
  std::int64_t copied = 0;
  std::int64_t after = 0;
};

// Axes without padding join the axis before them, so that runs are long.
Plan plan_pad(const ops::Pad& op, const Problem& problem) {
  const Shape &in = problem.inputs[0].shape, &out = problem.outputs[0].shape;
  Plan plan;
  auto step = static_cast<std::int64_t>(item_bytes(problem.inputs[0].dtype));
  plan.copied = step;
  std::size_t a = in.size();
  while (a > 0) {
    --a;
    plan.before = op.before[a] * step;
    plan.after = op.after[a] * step;
    step *= in[a];
    plan.copied = step;
    if (op.before[a] != 0 || op.after[a] != 0) break;
  }
  plan.outer.rank = static_cast<int>(a);
  while (a > 0) {
    --a;
    plan.outer.size[a] = out[a];
    plan.outer.begin[a] = op.before[a];
    plan.outer.inside[a] = in[a];
    plan.outer.input_step[a] = step;
    step *= in[a];
  }
  return plan;
}

void fill(std::byte* p, std::int64_t bytes, const Element& value, bool zero) noexcept {
  if (zero) {
    std::memset(p, 0, static_cast<std::size_t>(bytes));
    return;
  }
  const auto size = static_cast<std::int64_t>(value.size);
  for (std::int64_t i = 0; i < bytes; i += size) std::memcpy(p + i, value.bytes, value.size);
}

void pad_copy(const KernelArgs& args) noexcept {
  const auto& plan = *reinterpret_cast<const Plan*>(args.plan);
  const Element value = element_of(args.inputs[0].spec->dtype, op_of<ops::Pad>(args).value);
  const Element nothing;
  const bool zero = std::memcmp(value.bytes, nothing.bytes, sizeof value.bytes) == 0;
  const auto* const input = args.inputs[0].as<const std::byte>();
  const std::int64_t run = plan.before + plan.copied + plan.after;
  if (run == 0) return;
  auto body = [&](std::int64_t begin, std::int64_t end) {
    RunCursor cursor(plan.outer, begin);
    std::byte* output = args.outputs[0].as<std::byte>() + begin * run;
    for (std::int64_t r = begin; r < end; ++r, cursor.next(), output += run) {
      if (!cursor.inside()) {
        fill(output, run, value, zero);
        continue;
      }
      fill(output, plan.before, value, zero);
      if (plan.copied > 0)
        std::memcpy(output + plan.before, input + cursor.input_offset(),
                    static_cast<std::size_t>(plan.copied));
      fill(output + plan.before + plan.copied, plan.after, value, zero);
    }
  };
  parallel_ranges(args.threads, plan.outer.count(), run_grain(run), body);
}

const char* accept_rank(const ops::Pad&, const Problem& problem) {
  return problem.inputs[0].shape.size() > kMaxRunAxes + 1 ? "more than 9 axes" : nullptr;
}

Kernel make_pad(const ops::Pad& op, const Problem& problem) {
  Kernel kernel = plain_kernel<pad_copy>(op, problem);
  kernel.plan = plan_bytes(plan_pad(op, problem));
  return kernel;
}

}  // namespace

template <>
struct VariantList<ops::Pad> {
  static constexpr Variant<ops::Pad> kAll[] = {
      {"pad.copy", Isa::kBaseline, accept_rank, make_pad, Images::kAny},
      {"pad.reference", Isa::kBaseline, accept_all, plain_kernel<pad_reference>, Images::kAny}};
};
PYCNN_DEFINE_SELECT(ops::Pad)

}  // namespace pycnn::cpu
