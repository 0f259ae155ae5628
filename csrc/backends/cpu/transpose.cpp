#include <utility>

#include "backends/cpu/select.h"
#include "backends/cpu/slice_runs.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// Axes that stay neighbours are joined. If the innermost axis stays innermost, runs are copied.
// Otherwise the two axes that are innermost in the input and in the output span matrices, which are
// transposed tile by tile: a tile reads and writes whole cache lines. Nothing here depends on the
// instruction set: copying is bound by memory.
namespace pycnn::cpu {
namespace {

// Element by element: the input's index from the output's.
void transpose_reference(const KernelArgs& args) noexcept {
  const auto& permutation = op_of<ops::Transpose>(args).permutation;
  const Shape &in = args.inputs[0].spec->shape, &out = args.outputs[0].spec->shape;
  const std::size_t item = item_bytes(args.inputs[0].spec->dtype);
  for (std::int64_t i = 0, n = count_of(args.outputs[0]); i < n; ++i) {
    std::int64_t rest = i, source = 0;
    for (std::size_t a = out.size(); a-- > 0;) {
      std::int64_t step = 1;
      for (auto b = static_cast<std::size_t>(permutation[a]) + 1; b < in.size(); ++b) step *= in[b];
      source += rest % out[a] * step;
      rest /= out[a];
    }
    std::memcpy(args.outputs[0].as<std::byte>() + static_cast<std::size_t>(i) * item,
                args.inputs[0].as<const std::byte>() + static_cast<std::size_t>(source) * item,
                item);
  }
}

// ---- Joined axes

// One axis of the output; steps in elements.
struct Axis {
  std::int64_t size, input_step, output_step;
};

// Outermost axis of the output first. Empty when there is one element.
std::vector<Axis> joined_axes(const ops::Transpose& op, const Problem& problem) {
  const Shape &in = problem.inputs[0].shape, &out = problem.outputs[0].shape;
  std::vector<Axis> axes;
  std::int64_t output_step = 1;
  for (std::size_t a = out.size(); a-- > 0; output_step *= out[a]) {
    std::int64_t input_step = 1;
    for (auto b = static_cast<std::size_t>(op.permutation[a]) + 1; b < in.size(); ++b)
      input_step *= in[b];
    if (out[a] == 1) continue;
    if (!axes.empty() && axes.front().input_step * axes.front().size == input_step)
      axes.front().size *= out[a];
    else
      axes.insert(axes.begin(), {out[a], input_step, output_step});
  }
  return axes;
}

struct Plan {
  RunAxes outer;            // steps in elements
  Axis row = {1, 1, 1};     // innermost in the input
  Axis column = {1, 1, 1};  // innermost in the output; size 1 when runs are copied
};

Plan plan_transpose(const ops::Transpose& op, const Problem& problem) {
  std::vector<Axis> axes = joined_axes(op, problem);
  Plan plan;
  auto take = [&](Axis& target, auto&& wanted) {
    for (auto axis = axes.begin(); axis != axes.end(); ++axis)
      if (wanted(*axis)) {
        target = *axis;
        axes.erase(axis);
        return;
      }
  };
  take(plan.row, [](const Axis& axis) { return axis.input_step == 1; });
  take(plan.column, [](const Axis& axis) { return axis.output_step == 1; });
  for (const Axis& axis : axes) {
    const int i = plan.outer.rank++;
    plan.outer.size[i] = plan.outer.inside[i] = axis.size;
    plan.outer.input_step[i] = axis.input_step;
    plan.outer.output_step[i] = axis.output_step;
  }
  return plan;
}

// ---- Tiles

// out[j * out_step + i] = in[i * in_step + j] for i < rows, j < columns.
template <class T>
void transpose_small(const T* in, std::int64_t in_step, T* out, std::int64_t out_step,
                     std::int64_t rows, std::int64_t columns) noexcept {
  for (std::int64_t j = 0; j < columns; ++j)
    for (std::int64_t i = 0; i < rows; ++i) out[j * out_step + i] = in[i * in_step + j];
}

using Four = float __attribute__((vector_size(16), aligned(4), may_alias));

// Four by four elements of 32 bits; only moves bits.
void transpose_four(const std::uint32_t* in, std::int64_t in_step, std::uint32_t* out,
                    std::int64_t out_step) noexcept {
  const auto row = [&](std::int64_t i) { return *reinterpret_cast<const Four*>(in + i * in_step); };
  const Four a = row(0), b = row(1), c = row(2), d = row(3);
  const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Four ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Four cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const auto put = [&](std::int64_t j, Four v) {
    *reinterpret_cast<Four*>(out + j * out_step) = v;
  };
  put(0, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
  put(1, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
  put(2, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  put(3, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
}

template <class T>
void transpose_tile(const T* in, std::int64_t in_step, T* out, std::int64_t out_step,
                    std::int64_t rows, std::int64_t columns) noexcept {
  if constexpr (sizeof(T) == 4) {
    const std::int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
    for (std::int64_t j = 0; j < whole_columns; j += 4)
      for (std::int64_t i = 0; i < whole_rows; i += 4)
        transpose_four(in + i * in_step + j, in_step, out + j * out_step + i, out_step);
    transpose_small(in + whole_columns, in_step, out + whole_columns * out_step, out_step, rows,
                    columns - whole_columns);
    transpose_small(in + whole_rows * in_step, in_step, out + whole_rows, out_step,
                    rows - whole_rows, whole_columns);
  } else {
    transpose_small(in, in_step, out, out_step, rows, columns);
  }
}

// Elements of 64 bytes side by side: a cache line in both directions.
constexpr std::int64_t kTile = 16;
// Columns (of the input matrix: positions of Plan::column) that one piece of work covers.
constexpr std::int64_t kPiece = 128;

template <class T>
void transpose_matrices(const KernelArgs& args, const Plan& plan) noexcept {
  const std::int64_t pieces = ceil_div(plan.column.size, kPiece);
  auto body = [&](std::int64_t begin, std::int64_t end) {
    RunCursor cursor(plan.outer, begin / pieces);
    std::int64_t piece = begin % pieces;
    for (std::int64_t w = begin; w < end; ++w) {
      const T* const in = args.inputs[0].as<const T>() + cursor.input_offset();
      T* const out = args.outputs[0].as<T>() + cursor.output_offset();
      const std::int64_t last = std::min(plan.column.size, (piece + 1) * kPiece);
      for (std::int64_t i = piece * kPiece; i < last; i += kTile)
        for (std::int64_t j = 0; j < plan.row.size; j += kTile)
          transpose_tile(in + i * plan.column.input_step + j, plan.column.input_step,
                         out + j * plan.row.output_step + i, plan.row.output_step,
                         std::min(kTile, last - i), std::min(kTile, plan.row.size - j));
      if (++piece == pieces) {
        piece = 0;
        cursor.next();
      }
    }
  };
  const std::int64_t bytes =
      std::min(plan.column.size, kPiece) * plan.row.size * static_cast<std::int64_t>(sizeof(T));
  parallel_ranges(args.threads, plan.outer.count() * pieces, run_grain(bytes), body);
}

// ---- Runs

void copy_runs(const KernelArgs& args, const Plan& plan) noexcept {
  const auto item = static_cast<std::int64_t>(item_bytes(args.inputs[0].spec->dtype));
  const std::int64_t bytes = plan.row.size * item;
  auto body = [&](std::int64_t begin, std::int64_t end) {
    RunCursor cursor(plan.outer, begin);
    for (std::int64_t r = begin; r < end; ++r, cursor.next())
      std::memcpy(args.outputs[0].as<std::byte>() + cursor.output_offset() * item,
                  args.inputs[0].as<const std::byte>() + cursor.input_offset() * item,
                  static_cast<std::size_t>(bytes));
  };
  parallel_ranges(args.threads, plan.outer.count(), run_grain(bytes), body);
}

void transpose_blocked(const KernelArgs& args) noexcept {
  const auto& plan = *reinterpret_cast<const Plan*>(args.plan);
  if (count_of(args.outputs[0]) == 0) return;
  if (plan.column.size == 1) {
    copy_runs(args, plan);
    return;
  }
  switch (item_bytes(args.inputs[0].spec->dtype)) {
    case 1:
      transpose_matrices<std::uint8_t>(args, plan);
      break;
    case 2:
      transpose_matrices<std::uint16_t>(args, plan);
      break;
    case 4:
      transpose_matrices<std::uint32_t>(args, plan);
      break;
    default:
      transpose_matrices<std::uint64_t>(args, plan);
  }
}

const char* accept_rank(const ops::Transpose& op, const Problem& problem) {
  return joined_axes(op, problem).size() > kMaxRunAxes ? "more than 8 axes" : nullptr;
}

Kernel make_transpose(const ops::Transpose& op, const Problem& problem) {
  Kernel kernel = plain_kernel<transpose_blocked>(op, problem);
  kernel.plan = plan_bytes(plan_transpose(op, problem));
  return kernel;
}

}  // namespace

template <>
struct VariantList<ops::Transpose> {
  static constexpr Variant<ops::Transpose> kAll[] = {
      {"transpose.blocked", Isa::kBaseline, accept_rank, make_transpose, Images::kAny},
      {"transpose.reference", Isa::kBaseline, accept_all, plain_kernel<transpose_reference>,
       Images::kAny}};
};
PYCNN_DEFINE_SELECT(ops::Transpose)

}  // namespace pycnn::cpu
