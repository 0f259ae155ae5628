#include <algorithm>
#include <cstring>

#include "backends/cpu/select.h"
#include "backends/cpu/slice_runs.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// Elements of one row along the first axis; the number of rows may be 0.
std::int64_t row_items(const TensorSpec& spec) noexcept {
  std::int64_t items = 1;
  for (std::size_t a = 1; a < spec.shape.size(); ++a) items *= spec.shape[a];
  return items;
}

// ---- Take: any element type

void take_rows(const KernelArgs& args) noexcept {
  const auto& indices = op_of<ops::Take>(args).indices;
  const TensorSpec& spec = *args.inputs[0].spec;
  const std::int64_t bytes = row_items(spec) * static_cast<std::int64_t>(item_bytes(spec.dtype));
  if (bytes == 0) return;
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      auto* const target = args.outputs[0].as<std::byte>() + i * bytes;
      const std::int64_t index = indices[static_cast<std::size_t>(i)];
      if (index < 0)
        std::memset(target, 0, static_cast<std::size_t>(bytes));
      else
        std::memcpy(target, args.inputs[0].as<const std::byte>() + index * bytes,
                    static_cast<std::size_t>(bytes));
    }
  };
  parallel_ranges(args.threads, static_cast<std::int64_t>(indices.size()), run_grain(bytes), body);
}

// ---- TakeGrad: a row sums the gradients of the places it was taken to, in their order

void take_grad_reference(const KernelArgs& args) noexcept {
  const auto& indices = op_of<ops::TakeGrad>(args).indices;
  const std::int64_t row = row_items(*args.inputs[0].spec);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* grad = args.inputs[0].as<const T>();
    std::fill_n(args.outputs[0].as<T>(), count_of(args.outputs[0]), T(0));
    for (std::int64_t index : indices) {
      for (std::int64_t j = 0; j < row && index >= 0; ++j)
        args.outputs[0].as<T>()[index * row + j] += grad[j];
      grad += row;
    }
  });
}

// The plan lists for every row the places it was taken to: place[first[r]] ... place[first[r+1]-1],
// with `first` (rows + 1 numbers) ahead of `place`.
void take_grad_rows(const KernelArgs& args) noexcept {
  const std::int64_t rows = op_of<ops::TakeGrad>(args).rows;
  const auto* const first = reinterpret_cast<const std::int64_t*>(args.plan);
  const std::int64_t* const place = first + rows + 1;
  const std::int64_t items = row_items(*args.inputs[0].spec);
  const auto* const grad = args.inputs[0].as<const float>();
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* const target = args.outputs[0].as<float>() + r * items;
      std::fill_n(target, items, 0.0f);
      for (std::int64_t k = first[r]; k < first[r + 1]; ++k) {
        const float* const source = grad + place[k] * items;
        for (std::int64_t j = 0; j < items; ++j) target[j] += source[j];
      }
    }
  };
  parallel_ranges(args.threads, rows,
                  run_grain(2 * items * static_cast<std::int64_t>(sizeof(float))), body);
}

Kernel make_take_grad(const ops::TakeGrad& op, const Problem& problem) {
  std::vector<std::int64_t> table(static_cast<std::size_t>(op.rows) + 1, 0);
  for (std::int64_t index : op.indices)
    if (index >= 0) ++table[static_cast<std::size_t>(index) + 1];
  for (std::size_t r = 1; r < table.size(); ++r) table[r] += table[r - 1];
  std::vector<std::int64_t> next(table.begin(), table.end() - 1), places(op.indices.size(), 0);
  for (std::size_t i = 0; i < op.indices.size(); ++i)
    if (op.indices[i] >= 0)
      places[static_cast<std::size_t>(next[static_cast<std::size_t>(op.indices[i])]++)] =
          static_cast<std::int64_t>(i);
  table.insert(table.end(), places.begin(), places.end());

  Kernel kernel = plain_kernel<take_grad_rows>(op, problem);
  const auto* const bytes = reinterpret_cast<const std::byte*>(table.data());
  kernel.plan.assign(bytes, bytes + table.size() * sizeof(std::int64_t));
  return kernel;
}

}  // namespace

PYCNN_DEFINE_SINGLE_VARIANT(ops::Take, "take.copy", plain_kernel<take_rows>)

template <>
struct VariantList<ops::TakeGrad> {
  static constexpr Variant<ops::TakeGrad> kAll[] = {
      {"take_grad.rows", Isa::kBaseline, accept_float32, make_take_grad},
      {"take_grad.reference", Isa::kBaseline, accept_all, plain_kernel<take_grad_reference>}};
};
PYCNN_DEFINE_SELECT(ops::TakeGrad)

}  // namespace pycnn::cpu
