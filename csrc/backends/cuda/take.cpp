#include "backends/cuda/take.h"

#include <cstring>

#include "backends/cuda/glue.h"

namespace pycnn::cuda {
namespace {

// Elements of one row along the first axis; the number of rows may be 0.
std::int64_t row_items(const TensorSpec& spec) {
  std::int64_t items = 1;
  for (std::size_t axis = 1; axis < spec.shape.size(); ++axis) items *= spec.shape[axis];
  return items;
}

const std::int64_t* table_of(const KernelArgs& args) {
  return reinterpret_cast<const std::int64_t*>(args.plan);
}

void run_take(const KernelArgs& args) noexcept {
  const TensorSpec& spec = *args.inputs[0].spec;
  take(queue_of(args), item_size(spec.dtype), args.inputs[0].data, table_of(args),
       args.outputs[0].data, args.outputs[0].dim(0), row_items(spec));
}

void run_take_grad(const KernelArgs& args) noexcept {
  const std::int64_t rows = args.outputs[0].dim(0);
  take_grad(queue_of(args), args.inputs[0].as<const float>(), table_of(args),
            table_of(args) + rows + 1, args.outputs[0].as<float>(), rows,
            row_items(*args.inputs[0].spec));
}

// `first` (rows + 1 numbers), then `place`, as take_grad takes them.
std::vector<std::int64_t> places_of(const ops::TakeGrad& op) {
  std::vector<std::int64_t> table(static_cast<std::size_t>(op.rows) + 1, 0);
  for (const std::int64_t index : op.indices)
    if (index >= 0) ++table[static_cast<std::size_t>(index) + 1];
  for (std::size_t row = 1; row < table.size(); ++row) table[row] += table[row - 1];
  std::vector<std::int64_t> next(table.begin(), table.end() - 1), places(op.indices.size(), 0);
  for (std::size_t i = 0; i < op.indices.size(); ++i)
    if (op.indices[i] >= 0)
      places[static_cast<std::size_t>(next[static_cast<std::size_t>(op.indices[i])]++)] =
          static_cast<std::int64_t>(i);
  table.insert(table.end(), places.begin(), places.end());
  return table;
}

}  // namespace

Choice select(const ops::Take& op, const Problem&) {
  Choice choice{run_take};
  choice.plan = bytes_of(op.indices);
  return choice;
}

Choice select(const ops::TakeGrad& op, const Problem& problem) {
  if (const char* const reason = unfit_type(problem, true)) return refuse(reason);
  Choice choice{run_take_grad};
  choice.plan = bytes_of(places_of(op));
  return choice;
}

}  // namespace pycnn::cuda
