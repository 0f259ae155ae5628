#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// Each row of the result is a weighted sum of a few rows of the given image, each column likewise:
// two lists, worked out at selection. The gradient is the same with the lists turned round.
namespace pycnn::cpu {
namespace {

struct Tap {
  std::int64_t source;
  double weight;
};

// Of one axis: result i takes taps[first[i]] up to taps[first[i + 1]].
struct Taps {
  std::vector<std::int64_t> first = {0};
  std::vector<Tap> taps;

  std::int64_t begin(std::int64_t i) const { return first[static_cast<std::size_t>(i)]; }
  std::int64_t end(std::int64_t i) const { return first[static_cast<std::size_t>(i) + 1]; }
  const Tap& at(std::int64_t k) const { return taps[static_cast<std::size_t>(k)]; }
};

struct Tables {
  Taps rows, columns;
};

struct Axis {
  std::int64_t given, resized;
  double scale;  // 0: resized / given
};

// Where result i lies in the given image. Without a scale the fraction is rounded once.
double place_of(const ops::Resize2d& op, const Axis& axis, std::int64_t i) {
  const auto x = static_cast<double>(i), given = static_cast<double>(axis.given),
             resized = static_cast<double>(axis.resized);
  switch (op.grid) {
    case ResizeGrid::kAlignCorners:
      return axis.resized == 1 ? 0.0 : x * (given - 1.0) / (resized - 1.0);
    case ResizeGrid::kAsymmetric:
      return axis.scale == 0.0 ? x * given / resized : x / axis.scale;
    case ResizeGrid::kPytorchHalfPixel:
      if (axis.resized == 1) return 0.0;
      break;
    case ResizeGrid::kHalfPixel:
      break;
  }
  return axis.scale == 0.0 ? ((2.0 * x + 1.0) * given - resized) / (2.0 * resized)
                           : (x + 0.5) / axis.scale - 0.5;
}

double nearest(ResizeMode mode, double place) {
  switch (mode) {
    case ResizeMode::kNearestCeil:
      return std::ceil(place);
    case ResizeMode::kNearestRoundDown:
      return std::ceil(place - 0.5);
    case ResizeMode::kNearestRoundUp:
      return std::floor(place + 0.5);
    default:
      return std::floor(place);
  }
}

Taps taps_of(const ops::Resize2d& op, const Axis& axis) {
  const auto last = static_cast<double>(axis.given - 1);
  Taps result;
  const auto add = [&](double source, double weight) {
    if (weight != 0.0)
      result.taps.push_back({static_cast<std::int64_t>(std::clamp(source, 0.0, last)), weight});
  };
  for (std::int64_t i = 0; i < axis.resized; ++i) {
    const double place = place_of(op, axis, i), before = std::floor(place);
    if (op.mode != ResizeMode::kBilinear) {
      add(nearest(op.mode, place), 1.0);
    } else if (before < 0.0 || before >= last) {
      add(place, 1.0);
    } else {
      add(before, 1.0 - (place - before));
      add(before + 1.0, place - before);
    }
    result.first.push_back(static_cast<std::int64_t>(result.taps.size()));
  }
  return result;
}

// For each source the results that take it.
Taps turned(const Taps& taps, std::int64_t sources) {
  std::vector<std::vector<Tap>> lists(static_cast<std::size_t>(sources));
  const auto count = static_cast<std::int64_t>(taps.first.size()) - 1;
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t k = taps.begin(i); k < taps.end(i); ++k)
      lists[static_cast<std::size_t>(taps.at(k).source)].push_back({i, taps.at(k).weight});
  Taps result;
  for (const std::vector<Tap>& list : lists) {
    result.taps.insert(result.taps.end(), list.begin(), list.end());
    result.first.push_back(static_cast<std::int64_t>(result.taps.size()));
  }
  return result;
}

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

Axis axis_of(const ops::Resize2d& op, std::size_t i, std::int64_t given) {
  return {given, op.output_size[i], op.scales.empty() ? 0.0 : op.scales[i]};
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
