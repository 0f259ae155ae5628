#include "backends/cpu/reduce.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// Once axes of size 1 are dropped and equal neighbours joined, almost every reduction is
//
//   output[o, i] = sum over r of input[o, r, i]
//
// with O, R and I possibly 1: a sum over everything, over leading, trailing or middle axes. Rows
// with few columns are joined: g rows of I make one of g * I columns, whose g groups are added up
// at the end. That leaves column sums, which fill the lanes whatever the axes are. They are cut
// into units of some rows and some columns, by the shape alone; where the rows are cut, partial
// sums meet in a binary tree. Short rows (I = 1) are summed one by one instead.
namespace pycnn::cpu {
namespace {

struct Layout {
  std::int64_t outer, reduced, inner;
  std::int64_t divisor;         // of a mean; 1 for a sum
  std::int64_t fold;            // rows joined to one
  std::int64_t unit_rows;       // joined rows of a unit
  std::int64_t row_units;       // units along the rows
  std::int64_t unit_columns;    // columns of a unit
  std::int64_t column_units;    // units along the columns
  std::int64_t units_per_task;  // so that a task has enough to do
};

std::int64_t reduced_count(const ops::Reduce& op, const Shape& shape) {
  std::int64_t count = 1;
  for (std::int64_t axis : op.axes) count *= shape[static_cast<std::size_t>(axis)];
  return count;
}

// Sizes of alternating runs of kept and reduced axes, from the first kept run (size 1 if there is
// none).
std::vector<std::int64_t> runs_of(const ops::Reduce& op, const Shape& shape) {
  std::vector<std::int64_t> runs = {1};
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] == 1) continue;
    const bool reduced =
        std::find(op.axes.begin(), op.axes.end(), static_cast<std::int64_t>(axis)) != op.axes.end();
    if (reduced != (runs.size() % 2 == 0)) runs.push_back(1);
    runs.back() *= shape[axis];
  }
  return runs;
}

Layout layout_of(const ops::Reduce& op, const Shape& shape) {
  const std::vector<std::int64_t> runs = runs_of(op, shape);
  Layout layout{};
  layout.outer = runs[0];
  layout.reduced = runs.size() > 1 ? runs[1] : 1;
  layout.inner = runs.size() > 2 ? runs[2] : 1;
  layout.divisor = op.kind == Reduction::kMean ? reduced_count(op, shape) : 1;
  if (layout.reduced == 1) {
    layout.inner *= layout.outer;
    layout.outer = 1;
  }
  layout.fold = 1;
  while (layout.fold * 2 * layout.inner <= kFoldColumns && layout.fold * 2 <= layout.reduced)
    layout.fold *= 2;
  const std::int64_t columns = layout.fold * layout.inner;
  const std::int64_t rows = layout.reduced / layout.fold;
  layout.unit_columns = columns <= 4096 ? std::max<std::int64_t>(1, columns) : 2048;
  layout.column_units = ceil_div(columns, layout.unit_columns);
  layout.unit_rows = std::max<std::int64_t>(64, 2 * kElementGrain / layout.unit_columns);
  layout.row_units = std::max<std::int64_t>(1, ceil_div(rows, layout.unit_rows));
  layout.units_per_task = std::max<std::int64_t>(
      1,
      kElementGrain / (std::clamp<std::int64_t>(rows, 1, layout.unit_rows) * layout.unit_columns));
  return layout;
}

void divide(float* values, std::int64_t n, std::int64_t divisor) noexcept {
  if (divisor == 1) return;
  const auto by = static_cast<float>(divisor);
  for (std::int64_t i = 0; i < n; ++i) values[i] /= by;
}

// Unit (o, row unit, column unit), the last index running fastest. `output` is where (o, first
// column) goes.
template <const ReduceFunctions& Functions>
void run_unit(const Layout& layout, std::int64_t unit, const float* input, float* output,
              float* partial) noexcept {
  const std::int64_t column = unit % layout.column_units * layout.unit_columns;
  const std::int64_t row_unit = unit / layout.column_units % layout.row_units;
  const std::int64_t o = unit / layout.column_units / layout.row_units;
  const std::int64_t columns = layout.fold * layout.inner;
  const std::int64_t rows = layout.reduced / layout.fold;
  const std::int64_t first_row = row_unit * layout.unit_rows;
  const bool last = row_unit == layout.row_units - 1;

  FoldedColumnSums sums{};
  sums.input = input + o * layout.reduced * layout.inner + first_row * columns + column;
  sums.rows = std::min(layout.unit_rows, rows - first_row);
  sums.columns = std::min(layout.unit_columns, columns - column);
  sums.stride = columns;
  sums.tail = last ? layout.reduced % layout.fold * layout.inner : 0;
  sums.fold = layout.fold;
  const bool whole = layout.row_units == 1;
  sums.output = whole ? output + o * layout.inner + column
                      : partial + (row_unit * layout.outer + o) * layout.inner + column;
  Functions.column_sums(sums);
  if (whole) divide(sums.output, sums.columns / layout.fold, layout.divisor);
}

// Adds the partial sums of all row units into the first in a binary tree, for some outputs.
void combine(const Layout& layout, float* partial, float* output, std::int64_t begin,
             std::int64_t end) noexcept {
  const std::int64_t outputs = layout.outer * layout.inner;
  for (std::int64_t step = 1; step < layout.row_units; step *= 2)
    for (std::int64_t unit = 0; unit + step < layout.row_units; unit += 2 * step) {
      float* to = partial + unit * outputs;
      const float* from = to + step * outputs;
      for (std::int64_t i = begin; i < end; ++i) to[i] += from[i];
    }
  std::memcpy(output + begin, partial + begin,
              static_cast<std::size_t>(end - begin) * sizeof(float));
  divide(output + begin, end - begin, layout.divisor);
}

// Short rows are not worth joining and folding.
constexpr std::int64_t kShortRow = 256;

template <const ReduceFunctions& Functions>
void run_short_rows(const KernelArgs& args) noexcept {
  const auto& layout = *reinterpret_cast<const Layout*>(args.plan);
  const auto* input = args.inputs[0].as<const float>();
  auto* output = args.outputs[0].as<float>();
  const std::int64_t n = layout.reduced;
  parallel_ranges(args.threads, layout.outer, row_grain(n),
                  [&](std::int64_t begin, std::int64_t end) {
                    Functions.row_sums(input + begin * n, end - begin, n, output + begin);
                    divide(output + begin, end - begin, layout.divisor);
                  });
}

template <const ReduceFunctions& Functions>
void run_vector(const KernelArgs& args) noexcept {
  const auto& layout = *reinterpret_cast<const Layout*>(args.plan);
  const auto* input = args.inputs[0].as<const float>();
  auto* output = args.outputs[0].as<float>();
  auto* partial = reinterpret_cast<float*>(args.scratch);
  const std::int64_t units = layout.outer * layout.row_units * layout.column_units;
  parallel_ranges(args.threads, units, layout.units_per_task,
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t unit = begin; unit < end; ++unit)
                      run_unit<Functions>(layout, unit, input, output, partial);
                  });
  if (layout.row_units == 1) return;
  parallel_ranges(
      args.threads, layout.outer * layout.inner, kElementGrain / layout.row_units + 1,
      [&](std::int64_t begin, std::int64_t end) { combine(layout, partial, output, begin, end); });
}

// ---- Maxima, which need no order: NaN and the largest stay whatever they are compared with.

// Columns of a unit, and partial maxima of a row.
constexpr std::int64_t kMaxColumns = 1024;
constexpr std::int64_t kMaxLanes = 16;

template <class T>
T larger(T a, T b) noexcept {
  return b > a || b != b ? b : a;
}

float largest_of(const float* x, std::int64_t n) noexcept {
  float lanes[kMaxLanes];
  std::fill_n(lanes, kMaxLanes, x[0]);
  std::int64_t i = 0;
  for (; i + kMaxLanes <= n; i += kMaxLanes)
    for (std::int64_t lane = 0; lane < kMaxLanes; ++lane)
      lanes[lane] = larger(lanes[lane], x[i + lane]);
  for (; i < n; ++i) lanes[0] = larger(lanes[0], x[i]);
  for (std::int64_t lane = 1; lane < kMaxLanes; ++lane) lanes[0] = larger(lanes[0], lanes[lane]);
  return lanes[0];
}

void run_max(const KernelArgs& args) noexcept {
  const auto& layout = *reinterpret_cast<const Layout*>(args.plan);
  const std::int64_t n = layout.reduced, inner = layout.inner;
  const auto* input = args.inputs[0].as<const float>();
  auto* output = args.outputs[0].as<float>();
  if (inner == 1) {
    parallel_ranges(args.threads, layout.outer, row_grain(n),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t o = begin; o < end; ++o)
                        output[o] = largest_of(input + o * n, n);
                    });
    return;
  }
  const std::int64_t units = ceil_div(inner, kMaxColumns);
  auto run = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t o = unit / units, column = unit % units * kMaxColumns;
      const std::int64_t columns = std::min(kMaxColumns, inner - column);
      const float* x = input + o * n * inner + column;
      float* const y = output + o * inner + column;
      std::copy_n(x, columns, y);
      for (std::int64_t r = 1; r < n; ++r) {
        x += inner;
        for (std::int64_t i = 0; i < columns; ++i) y[i] = larger(y[i], x[i]);
      }
    }
  };
  parallel_ranges(args.threads, layout.outer * units, row_grain(n * std::min(inner, kMaxColumns)),
                  run);
}

// Any axes: walks the input once and adds to float64 sums in scratch, or keeps maxima there.
void reference(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Reduce>(args);
  const Shape& shape = args.inputs[0].spec->shape;
  const std::int64_t outputs = count_of(args.outputs[0]);
  auto* sums = reinterpret_cast<double*>(args.scratch);
  const bool maximum = op.kind == Reduction::kMax;
  std::fill_n(sums, outputs, maximum ? -std::numeric_limits<double>::infinity() : 0.0);
  std::int64_t divisor = 1;
  if (op.kind == Reduction::kMean)
    for (std::int64_t axis : op.axes) divisor *= shape[static_cast<std::size_t>(axis)];
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    const std::int64_t count = count_of(args.inputs[0]);
    for (std::int64_t i = 0; i < count; ++i) {
      std::int64_t rest = i, at = 0, step = 1;
      auto reduced = op.axes.rbegin();
      for (auto axis = static_cast<std::int64_t>(shape.size()) - 1; axis >= 0; --axis) {
        const std::int64_t size = shape[static_cast<std::size_t>(axis)];
        if (reduced != op.axes.rend() && *reduced == axis) {
          ++reduced;
        } else {
          at += rest % size * step;
          step *= size;
        }
        rest /= size;
      }
      const auto value = static_cast<double>(input[i]);
      sums[at] = maximum ? larger(sums[at], value) : sums[at] + value;
    }
    for (std::int64_t i = 0; i < outputs; ++i)
      args.outputs[0].as<T>()[i] = static_cast<T>(sums[i] / static_cast<double>(divisor));
  });
}

const char* accept_vector(const ops::Reduce& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  return runs_of(op, problem.inputs[0].shape).size() <= 3
             ? nullptr
             : "kept and reduced axes alternate more than (kept, reduced, kept)";
}

template <const ReduceFunctions& Functions>
Kernel make_vector(const ops::Reduce& op, const Problem& problem) {
  const Layout layout = layout_of(op, problem.inputs[0].shape);
  Kernel kernel;
  const bool short_rows =
      layout.inner == 1 && layout.outer > 1 && layout.reduced > 0 && layout.reduced < kShortRow;
  const bool maximum = op.kind == Reduction::kMax;
  kernel.run = maximum ? run_max : short_rows ? run_short_rows<Functions> : run_vector<Functions>;
  kernel.plan.resize(sizeof layout);
  std::memcpy(kernel.plan.data(), &layout, sizeof layout);
  if (layout.row_units > 1 && !maximum)
    kernel.scratch_bytes =
        static_cast<std::size_t>(layout.row_units * layout.outer * layout.inner) * sizeof(float);
  kernel.in_place = {0};
  return kernel;
}
Kernel make_reference(const ops::Reduce&, const Problem& problem) {
  Kernel kernel;
  kernel.run = reference;
  kernel.scratch_bytes =
      static_cast<std::size_t>(element_count(problem.outputs[0].shape)) * sizeof(double);
  kernel.in_place = {0};
  return kernel;
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::Reduce, "reduce", accept_vector, make_vector, kReduce, make_reference)

}  // namespace pycnn::cpu
