#include "backends/cuda/resize.h"

#include <cstring>

#include "backends/cuda/glue.h"
#include "backends/resize_taps.h"

namespace pycnn::cuda {
namespace {

static_assert(sizeof(ResizeTap) == sizeof(resize_taps::Tap) &&
              offsetof(ResizeTap, weight) == offsetof(resize_taps::Tap, weight));

// The plan: `first` of rows, `first` of columns, taps of rows, taps of columns. An axis has at most
// two taps for each of its places in the larger list of the forward op, so that all places are
// known without the tables.
struct PlanLayout {
  std::int64_t columns_first, row_taps, column_taps, bytes;
};
PlanLayout layout_of(const Shape& output, std::int64_t resized_rows, std::int64_t resized_columns) {
  constexpr auto kFirst = static_cast<std::int64_t>(sizeof(std::int64_t));
  constexpr auto kTap = static_cast<std::int64_t>(sizeof(ResizeTap));
  PlanLayout layout{};
  layout.columns_first = (output[1] + 1) * kFirst;
  layout.row_taps = layout.columns_first + (output[2] + 1) * kFirst;
  layout.column_taps = layout.row_taps + 2 * resized_rows * kTap;
  layout.bytes = layout.column_taps + 2 * resized_columns * kTap;
  return layout;
}

template <class T>
void put(std::vector<std::byte>& bytes, std::int64_t at, const std::vector<T>& list) {
  if (!list.empty()) std::memcpy(bytes.data() + at, list.data(), list.size() * sizeof(T));
}

std::vector<std::byte> plan_of(const PlanLayout& layout, const resize_taps::Taps& rows,
                               const resize_taps::Taps& columns) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(layout.bytes));
  put(bytes, 0, rows.first);
  put(bytes, layout.columns_first, columns.first);
  put(bytes, layout.row_taps, rows.taps);
  put(bytes, layout.column_taps, columns.taps);
  return bytes;
}

void run(const KernelArgs& args, const Shape& resized) {
  const Shape& input = args.inputs[0].spec->shape;
  const Shape& output = args.outputs[0].spec->shape;
  const PlanLayout layout = layout_of(output, resized[1], resized[2]);
  const auto first = [&](std::int64_t at) {
    return reinterpret_cast<const std::int64_t*>(args.plan + at);
  };
  const auto taps = [&](std::int64_t at) {
    return reinterpret_cast<const ResizeTap*>(args.plan + at);
  };
  resize(queue_of(args), image_of(args.inputs[0]),
         {args.inputs[0].data,
          args.outputs[0].data,
          {first(0), taps(layout.row_taps)},
          {first(layout.columns_first), taps(layout.column_taps)},
          output[0],
          input[1],
          input[2],
          output[1],
          output[2],
          output[3]});
}

void run_resize(const KernelArgs& args) noexcept { run(args, args.outputs[0].spec->shape); }
void run_resize_grad(const KernelArgs& args) noexcept { run(args, args.inputs[0].spec->shape); }

// `resized`: the shape of the larger list's images, those of the forward op's result.
Choice choose(KernelFunction run, const Shape& output, const Shape& resized,
              const resize_taps::Taps& rows, const resize_taps::Taps& columns) {
  const auto fits = [](const resize_taps::Taps& taps, std::int64_t places) {
    return static_cast<std::int64_t>(taps.taps.size()) <= 2 * places;
  };
  if (!fits(rows, resized[1]) || !fits(columns, resized[2]))
    return refuse("a pixel is made of more than two along an axis");
  Choice choice{run};
  choice.plan = plan_of(layout_of(output, resized[1], resized[2]), rows, columns);
  return choice;
}

}  // namespace

Choice select(const ops::Resize2d& op, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  const Shape& input = problem.inputs[0].shape;
  const Shape& output = problem.outputs[0].shape;
  return choose(run_resize, output, output,
                resize_taps::taps_of(op, resize_taps::axis_of(op, 0, input[1])),
                resize_taps::taps_of(op, resize_taps::axis_of(op, 1, input[2])));
}

Choice select(const ops::Resize2dGrad& op, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  const auto taps = [&](std::size_t i) {
    const std::int64_t given = op.input_size[i];
    return resize_taps::turned(
        resize_taps::taps_of(op.resize, resize_taps::axis_of(op.resize, i, given)), given);
  };
  return choose(run_resize_grad, problem.outputs[0].shape, problem.inputs[0].shape, taps(0),
                taps(1));
}

}  // namespace pycnn::cuda
