#include <algorithm>
#include <cstring>
#include <memory>

#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "backends/resize_taps.h"
#include "core/parallel.h"

// Each row of the result is a weighted sum of a few rows of the given image, each column likewise:
// two lists, worked out at selection. The gradient is the same with the lists turned round.
namespace pycnn::cpu {
namespace {

using resize_taps::axis_of;
using resize_taps::Taps;

struct Tables {
  Taps rows, columns;
};

template <class T>
void add_pixel(const T* x, T weight, bool first, std::int64_t channels, T* y) noexcept {
  if (first)
    for (std::int64_t c = 0; c < channels; ++c) y[c] = weight * x[c];
  else
    for (std::int64_t c = 0; c < channels; ++c) y[c] += weight * x[c];
}

template <class T>
void resize_row(const Tables& tables, const T* image, std::int64_t row, std::int64_t width,
                std::int64_t out_width, std::int64_t channels, T* y) noexcept {
  const Taps &rows = tables.rows, &columns = tables.columns;
  const std::int64_t row_begin = rows.begin(row), row_end = rows.end(row);
  for (std::int64_t column = 0; column < out_width; ++column, y += channels) {
    const std::int64_t begin = columns.begin(column), end = columns.end(column);
    if (row_begin == row_end || begin == end) std::fill_n(y, channels, T(0));
    for (std::int64_t r = row_begin; r < row_end; ++r)
      for (std::int64_t k = begin; k < end; ++k) {
        const T* x = image + (rows.at(r).source * width + columns.at(k).source) * channels;
        add_pixel(x, static_cast<T>(rows.at(r).weight * columns.at(k).weight),
                  r == row_begin && k == begin, channels, y);
      }
  }
}

void run_resize(const KernelArgs& args) noexcept {
  const Tables* tables = nullptr;
  std::memcpy(&tables, args.plan, sizeof tables);
  const TensorView &from = args.inputs[0], &to = args.outputs[0];
  const std::int64_t height = to.dim(1), width = to.dim(2), channels = to.dim(3);
  const std::int64_t given = from.dim(1) * from.dim(2) * channels;
  with_float(to.spec->dtype, [&](auto type) {
    using T = decltype(type);
    parallel_ranges(args.threads, to.dim(0) * height, row_grain(width * channels, 2),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; ++i)
                        resize_row(*tables, from.as<const T>() + i / height * given, i % height,
                                   from.dim(2), width, channels, to.as<T>() + i * width * channels);
                    });
  });
}

Kernel make_tables_kernel(std::shared_ptr<const Tables> tables) {
  Kernel kernel;
  kernel.run = run_resize;
  kernel.in_place = {0};
  const Tables* const address = tables.get();
  kernel.plan.resize(sizeof address);
  std::memcpy(kernel.plan.data(), &address, sizeof address);
  kernel.state = std::move(tables);
  return kernel;
}

Kernel make_resize(const ops::Resize2d& op, const Problem& problem) {
  const Shape& shape = problem.inputs[0].shape;
  return make_tables_kernel(std::make_shared<const Tables>(
      Tables{taps_of(op, axis_of(op, 0, shape[1])), taps_of(op, axis_of(op, 1, shape[2]))}));
}

Kernel make_resize_grad(const ops::Resize2dGrad& op, const Problem&) {
  const auto taps = [&](std::size_t i) {
    return turned(taps_of(op.resize, axis_of(op.resize, i, op.input_size[i])), op.input_size[i]);
  };
  return make_tables_kernel(std::make_shared<const Tables>(Tables{taps(0), taps(1)}));
}

}  // namespace

template <>
struct VariantList<ops::Resize2d> {
  static constexpr Variant<ops::Resize2d> kAll[] = {
      {"resize2d.reference", Isa::kBaseline, accept_all, make_resize}};
};
PYCNN_DEFINE_SELECT(ops::Resize2d)

template <>
struct VariantList<ops::Resize2dGrad> {
  static constexpr Variant<ops::Resize2dGrad> kAll[] = {
      {"resize2d_grad.reference", Isa::kBaseline, accept_all, make_resize_grad}};
};
PYCNN_DEFINE_SELECT(ops::Resize2dGrad)

}  // namespace pycnn::cpu
